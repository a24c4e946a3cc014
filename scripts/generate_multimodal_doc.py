"""Writes what was compared of families that see or hear into docs/multimodal.md.

make test-media
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "multimodal.md"
RESULTS = ROOT / "bench" / "results" / "multimodal.json"
sys.path.insert(0, str(ROOT))

from tests.media_families import CASES  # noqa: E402
from tests.media_groups import NO_CLASS, PLUGINS  # noqa: E402
from tunesmith.models.families import SEEING  # noqa: E402
from tunesmith.models.media import media_family_of  # noqa: E402

_KINDS = ("image", "video", "audio")
_COLUMNS = (
    "family",
    "processor, model",
    *_KINDS,
    "counts by",
    "ids equal",
    "own template",
    "features = places",
    "backward",
    "batches",
)


def page(text: str, found: list[dict[str, Any]]) -> str:
    """The page with its tables as they are to be."""
    cells = {(one["family"], one["kind"]): one for one in found}
    tables = {"families": families(cells), "plugins": plugins(cells), "groups": groups()}
    for name, table in tables.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        text = re.sub(f"{begin}.*{end}", lambda _, t=table, b=begin, e=end: f"{b}\n{t}\n{e}", text, flags=re.DOTALL)
    return text


def families(cells: dict[tuple[str, str], dict[str, Any]]) -> str:
    rows = [
        "| " + " | ".join(_COLUMNS) + " |",
        "|" + "---|" * len(_COLUMNS),
    ]
    for name, case in CASES.items():
        own = {kind: cells[name, kind] for kind in _KINDS if (name, kind) in cells}
        kinds = ["-" if kind not in own else _tried(own[kind]) for kind in _KINDS]
        ids, *sums = [_of_all(own.values(), key) for key in ("ids", "features", "backward")]
        template = Path(own.get("image", {}).get("template", "-")).stem
        rule = _rule(case.processor)
        batches = "flat" if case.model_type in SEEING else "padded"
        classes = f"`{case.processor}`, `{case.model}`"
        rows.append("| " + " | ".join([name, classes, *kinds, rule, ids, template, *sums, batches]) + " |")
    return "\n".join(rows)


def _tried(cell: dict[str, Any]) -> str:
    return "yes" if cell.get("ids") else f"not run: {cell['why']}"


def _of_all(cells: Any, key: str) -> str:
    """`yes`, or why not."""
    some = [cell for cell in cells if cell.get("ids")]
    if all(cell[key] for cell in some):
        return "yes"
    why = {cell["why"] or "no tokens: cross-attention" for cell in some if not cell[key]}
    return "; ".join(sorted(why))


def _rule(processor: str) -> str:
    family = media_family_of(processor)
    if family.literal:
        return "one token"
    return "size" if not family.fixed else "fixed" + ("" if family.fixed == ("image", "audio") else " for images")


def plugins(cells: dict[tuple[str, str], dict[str, Any]]) -> str:
    rows = ["| plugin of LlamaFactory | families here |", "|---|---|", "| `base` | models that read text |"]
    for name, own in PLUGINS.items():
        run = [one for one in own if any(cells.get((one, kind), {}).get("ids") for kind in _KINDS)]
        rows.append(f"| `{name}` | {', '.join(run) or 'not run: no class in transformers, see below'} |")
    return "\n".join(rows)


def groups() -> str:
    rows = ["| models | `model_type` |", "|---|---|"]
    return "\n".join(
        [*rows, *(f"| {name} | {', '.join(f'`{one}`' for one in own)} |" for name, own in NO_CLASS.items())]
    )


if __name__ == "__main__":
    TARGET.write_text(page(TARGET.read_text("utf-8"), json.loads(RESULTS.read_text("utf-8"))), encoding="utf-8")
    print(f"wrote {TARGET}")
