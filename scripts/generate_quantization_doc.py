"""Writes the tables of docs/quantization.md: of what is known of each kind of quantization, and of what was measured.

python scripts/generate_quantization_doc.py
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tunesmith.config.quantizer_facts import ON_THE_FLY, QUANTIZERS, QuantizerFacts

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "quantization.md"
MEASURED = ROOT / "bench" / "results" / "quantization.json"


def _device(facts: QuantizerFacts) -> str:
    if not facts.devices:
        return "any"
    least = f" {'.'.join(map(str, facts.capability))}" if facts.capability else ""
    return f"{', '.join(facts.devices)}{least}"


def _packages(facts: QuantizerFacts) -> str:
    return " ".join(f"`{name}>={least}`" for name, least in facts.packages) or "none"


def _row(facts: QuantizerFacts) -> str:
    trains = "all methods" if "any" in facts.trains else " ".join(facts.trains) or "nothing"
    cells = [facts.name, _packages(facts), _device(facts), trains, "yes" if facts.merges else "no", facts.proof]
    return f"| {' | '.join(cells)} |"


def facts_table(facts: Iterable[QuantizerFacts]) -> str:
    head = ["| kind | packages | device | trains on it | merge | tested |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *map(_row, facts)])


def measured_table() -> str:
    runs: list[dict[str, Any]] = json.loads(MEASURED.read_text(encoding="utf-8"))
    whole = next(run["seconds"] for run in runs if run["kind"] == "none")
    rows = ["| kind | bytes a weight | seconds a step | times the unquantized |", "|---|---|---|---|"]
    for run in runs:
        seconds, size = run["seconds"], run["bytes_per_weight"]
        rows.append(f"| {run['kind']} | {size:.3f} | {seconds:.2f} | {seconds / whole:.1f} |")
    return "\n".join(rows)


TABLES = {
    "while loading": lambda: facts_table(ON_THE_FLY.values()),
    "checkpoints": lambda: facts_table(facts for name, facts in QUANTIZERS.items() if name not in ON_THE_FLY),
    "measured": measured_table,
}


def page(text: str) -> str:
    """The page with the tables as they are now."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{table()}\n{end}{rest.split(end)[1]}"
    return text


if __name__ == "__main__":
    TARGET.write_text(page(TARGET.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {TARGET}")
