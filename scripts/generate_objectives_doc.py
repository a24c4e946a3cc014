"""Writes the tables of losses of preferences into docs/objectives.md, from their facts and the witnesses of the tests.

python scripts/generate_objectives_doc.py
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "objectives.md"
sys.path.insert(0, str(ROOT))

from tests.preference_witnesses import WITNESSES  # noqa: E402
from tunesmith.config.preference_facts import FEEDBACK_FACTS, OTHER_NAMES, PAIR_FACTS, PairFacts  # noqa: E402


def page(text: str) -> str:
    """The page with both tables as they are to be."""
    return _between(_between(text, "pairs", pairs()), "answers", answers())


def _between(text: str, name: str, table: str) -> str:
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    return re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n{table}\n{end}", text, flags=re.DOTALL)


def _paper(title: str, source: str) -> str:
    return f"[{title}](https://arxiv.org/abs/{source})"


def _names(name: str) -> str:
    others = [other for other, meant in OTHER_NAMES.items() if meant == name]
    return ", ".join(f"`{one}`" for one in (name, *others))


def _notes(facts: PairFacts) -> str:
    bounds = f"{'above 0' if facts.has_to_smooth else 'from 0'}, below {facts.less_than:g}"
    notes = (
        (facts.averages, "log probabilities per token"),
        (facts.smooths, f"label smoothing {bounds}"),
        (facts.divergence, "other divergences"),
        (facts.whole_step, "all pairs of a step"),
        (facts.sft, "has a fine-tuning term"),
    )
    return "; ".join(note for holds, note in notes if holds)


def pairs() -> str:
    rows = ["| loss | paper | reference | what it reads | witness |", "|---|---|---|---|---|"]
    for name, facts in PAIR_FACTS.items():
        needs = "yes" if facts.reference else "no"
        cells = (_names(name), _paper(facts.title, facts.source), needs, _notes(facts), WITNESSES[name])
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def answers() -> str:
    rows = ["| loss | paper | one number for a step | witness |", "|---|---|---|---|"]
    for name, facts in FEEDBACK_FACTS.items():
        number = "divergence from the reference, of answers to other prompts" if facts.kl else ""
        number = "mean reward of liked and of disliked answers" if facts.shift else number
        rows.append(f"| `{name}` | {_paper(facts.title, facts.source)} | {number} | {WITNESSES[name]} |")
    return "\n".join(rows)


if __name__ == "__main__":
    TARGET.write_text(page(TARGET.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {TARGET}")
