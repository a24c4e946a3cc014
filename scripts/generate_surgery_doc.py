"""Writes what a mixture of depths was measured to do, and the types of models that it is for, into docs/surgery.md.

python scripts/generate_surgery_doc.py
"""

from __future__ import annotations

import json
from pathlib import Path

from tunesmith.models.families import DEPTHS

ROOT = Path(__file__).parents[1]
TARGET, RESULTS = ROOT / "docs" / "surgery.md", ROOT / "bench" / "results" / "mixture_of_depths.json"
BEGIN, END = "<!-- depths: begin -->", "<!-- depths: end -->"
TYPES, TYPES_END = "<!-- depths, types: begin -->", "<!-- depths, types: end -->"


def table() -> str:
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))
    return "\n".join(
        [
            "| model | nats a token, read at once | token by token | both find the same token likeliest |",
            "|---|---|---|---|",
            *(
                f"| {name} | {one['at once']:.3f} | {one['token by token']:.3f} | {one['same token']:.1%} |"
                for name, one in rows.items()
            ),
        ]
    )


def types() -> str:
    return f"**Types of models** ({len(DEPTHS)}): {', '.join(sorted(DEPTHS))}."


def page(text: str) -> str:
    """The page as it is now."""
    for begin, end, made in ((BEGIN, END, table()), (TYPES, TYPES_END, types())):
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{made}\n{end}{rest.split(end)[1]}"
    return text


if __name__ == "__main__":
    TARGET.write_text(page(TARGET.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {TARGET}")
