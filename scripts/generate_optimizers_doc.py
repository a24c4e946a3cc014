"""Writes the tables of docs/optimizers.md, from the tables of the config and what was measured.

python bench/optimizer_states.py && python bench/memory_methods.py
python scripts/generate_optimizers_doc.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "optimizers.md"
RESULTS = ROOT / "bench" / "results"
sys.path.insert(0, str(ROOT))

from scripts.tables import table, with_tables  # noqa: E402
from tunesmith.config.optimizer_facts import OPTIMIZERS, REFUSED_OPTIMS, OptimizerFacts  # noqa: E402
from tunesmith.config.schedule_facts import SCHEDULES  # noqa: E402


def optimizers() -> str:
    states = json.loads((RESULTS / "optimizer_states.json").read_text(encoding="utf-8"))
    head = ("asked for by", "of", "finetuning types", "bytes of states", "in backward", "ranks", "`optim_args`")
    return table(head, [_row(facts, states.get(name)) for name, facts in OPTIMIZERS.items()])


def _row(facts: OptimizerFacts, states: float | None) -> Sequence[str]:
    maker = "Tunesmith" if facts.ours else facts.package or ("transformers" if facts.name == "adafactor" else "torch")
    return (
        f"`{facts.asked}`",
        maker,
        ", ".join(facts.methods or ("all",)),
        "not run" if states is None else f"{states:.2f}",
        "yes" if facts.in_backward else "no",
        "one" if not facts.ranks else "not run" if facts.gpu_only else "yes",
        " ".join(f"`{name}`" for name in facts.options),
    )


def refused() -> str:
    return table(("`optim`", "instead"), [(f"`{name}`", instead) for name, instead in REFUSED_OPTIMS.items()])


def schedules() -> str:
    rows = []
    for name, facts in SCHEDULES.items():
        needs = f"one of {' and '.join(f'`{key}`' for key in facts.one_of)}" if facts.one_of else ""
        takes = " ".join(f"`{key}`" for key in facts.takes if key not in facts.one_of)
        rows.append((f"`{name}`", needs, takes))
    return table(("`lr_scheduler_type`", "needs", "takes"), rows)


def memory() -> str:
    found = json.loads((RESULTS / "memory_methods.json").read_text(encoding="utf-8"))
    rows = [(name, f"{case['growth']:,.0f}", f"{case['peak']:,.0f}") for name, case in found.items()]
    return table(("", "growth, MB", "peak, MB"), rows)


TABLES = {"optimizers": optimizers, "refused": refused, "schedules": schedules, "memory": memory}


def page(text: str) -> str:
    """The page with its tables as they are now."""
    return with_tables(text, TABLES)


if __name__ == "__main__":
    TARGET.write_text(page(TARGET.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {TARGET}")
