"""Writes the tables of docs/optimizers.md, from the tables of the config and what was measured.

python bench/optimizer_states.py && python bench/memory_methods.py
python scripts/generate_optimizers_doc.py
"""

from __future__ import annotations

import json
from pathlib import Path

from tunesmith.config.optimizer_facts import OPTIMIZERS, REFUSED_OPTIMS, OptimizerFacts
from tunesmith.config.schedule_facts import SCHEDULES

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "optimizers.md"
RESULTS = ROOT / "bench" / "results"


def optimizers() -> str:
    states = json.loads((RESULTS / "optimizer_states.json").read_text(encoding="utf-8"))
    head = "| asked for by | of | finetuning types | bytes of states | in backward | ranks | `optim_args` |\n"
    rows = [_row(facts, states.get(name)) for name, facts in OPTIMIZERS.items()]
    return head + "|---|---|---|---|---|---|---|\n" + "".join(rows)


def _row(facts: OptimizerFacts, states: float | None) -> str:
    maker = "Tunesmith" if facts.ours else facts.package or ("transformers" if facts.name == "adafactor" else "torch")
    cells = (
        f"`{facts.asked}`",
        maker,
        ", ".join(facts.methods or ("all",)),
        "not run" if states is None else f"{states:.2f}",
        "yes" if facts.in_backward else "no",
        "one" if not facts.ranks else "not run" if facts.gpu_only else "yes",
        " ".join(f"`{name}`" for name in facts.options),
    )
    return f"| {' | '.join(cells)} |\n"


def refused() -> str:
    rows = [f"| `{name}` | {instead} |\n" for name, instead in REFUSED_OPTIMS.items()]
    return "| `optim` | instead |\n|---|---|\n" + "".join(rows)


def schedules() -> str:
    rows = []
    for name, facts in SCHEDULES.items():
        needs = f"one of {' and '.join(f'`{key}`' for key in facts.one_of)}" if facts.one_of else ""
        takes = " ".join(f"`{key}`" for key in facts.takes if key not in facts.one_of)
        rows.append(f"| `{name}` | {needs} | {takes} |\n")
    return "| `lr_scheduler_type` | needs | takes |\n|---|---|---|\n" + "".join(rows)


def memory() -> str:
    found = json.loads((RESULTS / "memory_methods.json").read_text(encoding="utf-8"))
    rows = [f"| {name} | {case['growth']:,.0f} | {case['peak']:,.0f} |\n" for name, case in found.items()]
    return "| | growth, MB | peak, MB |\n|---|---|---|\n" + "".join(rows)


TABLES = {"optimizers": optimizers, "refused": refused, "schedules": schedules, "memory": memory}


def page(text: str) -> str:
    """The page with its tables as they are now."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}{table()}{end}{rest.split(end)[1]}"
    return text


if __name__ == "__main__":
    TARGET.write_text(page(TARGET.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {TARGET}")
