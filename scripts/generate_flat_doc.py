"""Writes the table of types of models that read flat batches, and of those that are padded, into docs/performance.md.

python scripts/generate_flat_doc.py
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tunesmith.models.families import FLAT, PADDED
from tunesmith.models.families.shims import BY_HELP

TARGET = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- flat batches: begin -->", "<!-- flat batches: end -->"


def table() -> str:
    padded: dict[str, list[str]] = {}
    for model_type, reason in PADDED.items():
        padded.setdefault(reason, []).append(model_type)
    flat = {"as they are": FLAT, **BY_HELP}
    count = sum(map(len, flat.values()))
    return "\n".join(
        [
            f"| flat batches ({count} types): how they are read | types |",
            "|---|---|",
            *(_row(how, types) for how, types in flat.items()),
            "",
            f"| padded batches ({len(PADDED)} types): such a model | types |",
            "|---|---|",
            *(_row(reason, types) for reason, types in padded.items()),
        ]
    )


def _row(words: str, types: Iterable[str]) -> str:
    return f"| {words} | {' '.join(sorted(types))} |"


def page(text: str) -> str:
    """The page with the table as it is now."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    TARGET.write_text(page(TARGET.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {TARGET}")
