"""Writes the tables of docs/quantization.md: of what is known of each kind of quantization, and of what was measured.

python scripts/generate_quantization_doc.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "quantization.md"
MEASURED = ROOT / "bench" / "results" / "quantization.json"
sys.path.insert(0, str(ROOT))

from scripts.tables import table, with_tables  # noqa: E402
from tunesmith.config.quantizer_facts import ON_THE_FLY, QUANTIZERS, QuantizerFacts  # noqa: E402


def _device(facts: QuantizerFacts) -> str:
    if not facts.devices:
        return "any"
    least = f" {'.'.join(map(str, facts.capability))}" if facts.capability else ""
    return f"{', '.join(facts.devices)}{least}"


def _packages(facts: QuantizerFacts) -> str:
    return " ".join(f"`{name}>={least}`" for name, least in facts.packages) or "none"


def _row(facts: QuantizerFacts) -> Sequence[str]:
    trains = "all methods" if "any" in facts.trains else " ".join(facts.trains) or "nothing"
    return [facts.name, _packages(facts), _device(facts), trains, "yes" if facts.merges else "no", facts.proof]


def facts_table(facts: Iterable[QuantizerFacts]) -> str:
    return table(("kind", "packages", "device", "trains on it", "merge", "tested"), map(_row, facts))


def measured_table() -> str:
    runs: list[dict[str, Any]] = json.loads(MEASURED.read_text(encoding="utf-8"))
    whole = next(run["seconds"] for run in runs if run["kind"] == "none")
    rows = []
    for run in runs:
        seconds, size = run["seconds"], run["bytes_per_weight"]
        rows.append((run["kind"], f"{size:.3f}", f"{seconds:.2f}", f"{seconds / whole:.1f}"))
    return table(("kind", "bytes a weight", "seconds a step", "times the unquantized"), rows)


TABLES = {
    "while loading": lambda: facts_table(ON_THE_FLY.values()),
    "checkpoints": lambda: facts_table(facts for name, facts in QUANTIZERS.items() if name not in ON_THE_FLY),
    "measured": measured_table,
}


def page(text: str) -> str:
    """The page with the tables as they are now."""
    return with_tables(text, TABLES)


if __name__ == "__main__":
    TARGET.write_text(page(TARGET.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {TARGET}")
