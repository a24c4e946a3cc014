"""Writes docs/tools.md: every tool dialect, its witness, what it carries. Takes some minutes.

python scripts/generate_tools_doc.py
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.real_calls import RealCase, real_cases  # noqa: E402
from tests.tool_calls import NUMBER_LIKE, Case, cases, markup_of  # noqa: E402
from tests.unit.render.tools.test_witnesses import LLAMAFACTORY, OFFICIAL  # noqa: E402
from tunesmith.core.types import ToolCall  # noqa: E402
from tunesmith.render.tools import DIALECTS, Dialect, DialectRefusal, get_dialect  # noqa: E402
from tunesmith.render.tools.schemas import same_value  # noqa: E402

TARGET = ROOT / "docs" / "tools.md"
ASSETS = ROOT / ".." / "shared" / "assets"
EXAMPLES = 1000
OTHER_WITNESSES = {
    "default": "LlamaFactory's source",
    "granite": "Granite 3.3's and 3.0's templates: the tools, and the words that introduce a call",
    "llama3_pythonic": "vLLM's published template; strings have quotes here",
    "lfm2": "LFM2-8B-A1B for the tools, LlamaFactory for the calls",
}

INTRODUCTION = """# Tool dialects

How each family of models is told about tools, writes its calls, and is read back. Made by
`python scripts/generate_tools_doc.py`; do not edit.

A template names its dialect (`tools: {{dialect: qwen}}`); `tool_format: NAME` chooses another for a run. What a
dialect writes, its parser reads back as it was, or the writer refuses the row with E-RENDER-021 and says what the form
has no place for. Where values stand without quotes,
the tool's JSON schema tells types: `5` is the string `"5"` where the schema says `string`, and the number 5 where it
says `integer` or nothing. Plain strings, nested objects and calls without arguments are never refused. A malformed call
in a model's reply stays text.

*Written as in* names the template whose text the dialect's equals, character for character. *Carried* counts
{examples} replies of the strategy in `tests/tool_calls.py`; the others are refused, none is changed. *Real* counts the
{real} turns with calls of BFCL (simple and parallel), glaive and a reasoning set. *Several* and *text*: whether a turn
can have several calls, and text beside them.

{features}

| dialect | written as in | carried | real | several | text |
|---|---|---|---|---|---|
"""


REFUSALS = """## What they cannot carry

Beside what each line names, every form refuses names that hold its own markup, and a text beside a call that is itself
a call in that form.

"""


def share(dialect: Dialect, features: Counter[str]) -> float:
    """Part of the strategy's examples that come back. Raises AssertionError if one comes back changed. Counts what
    the examples hold."""
    carried: list[bool] = []

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @seed(0)
    @given(case=cases(dialect))
    def count(case: Case) -> None:
        carried.append(carries(dialect, case))
        strings = [text for call in case.calls for text in strings_of(dict(call.arguments))]
        features["examples"] += 1
        features["several calls"] += len(case.calls) > 1
        features["text beside the calls"] += bool(case.content)
        features["a call without arguments"] += not all(call.arguments for call in case.calls)
        features["a nested object or list"] += any(
            isinstance(value, dict | list) for call in case.calls for value in call.arguments.values()
        )
        features["a string that reads as a number or a word of JSON"] += any(text in NUMBER_LIKE for text in strings)
        features["a string with quotes or backslashes"] += any(set(text) & set("'\"\\") for text in strings)
        features["a string with line ends"] += any("\n" in text for text in strings)
        words = [word for word in markup_of(dialect) if len(word) > 3]
        features["a string with the dialect's own markup"] += any(word in text for text in strings for word in words)

    count()
    return sum(carried) / len(carried)


def strings_of(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings_of(inner)


def carries(dialect: Dialect, case: Case | RealCase) -> bool:
    try:
        text = "".join(piece for piece, _ in dialect.write_calls(case.calls, case.content, case.tools))
    except DialectRefusal:
        return False
    read = dialect.parse(text, case.tools).calls
    assert len(read) == len(case.calls), text
    assert all(map(_same, read, case.calls)), text
    return True


def _same(one: ToolCall, other: ToolCall) -> bool:
    return one.name == other.name and same_value(dict(one.arguments), dict(other.arguments))


def witness(name: str) -> str:
    if name in OTHER_WITNESSES:
        return OTHER_WITNESSES[name]
    if name in LLAMAFACTORY:
        return f"LlamaFactory's `{LLAMAFACTORY[name][0]}`"
    return ", ".join(f"`{Path(file).name}`" for file in OFFICIAL[name])


def page(progress: Callable[[str], Any] = print) -> str:
    real = real_cases(ASSETS)
    features: Counter[str] = Counter()
    rows = refusals = ""
    for name in sorted(DIALECTS):
        dialect = get_dialect(name)
        part = share(dialect, features)
        turns = sum(carries(dialect, case) for case in real)
        several = "no" if dialect.max_calls == 1 else "yes"
        beside = "yes" if dialect.takes_content else "no"
        rows += f"| {name} | {witness(name)} | {part:.1%} | {turns} | {several} | {beside} |\n"
        refusals += f"- **{name}**: {'; '.join(dialect.refuses) or 'nothing'}\n"
        progress(f"{name} {part:.1%} {turns}")
    told = "Of 100 replies of the strategy, counted over all dialects:\n\n"
    told += "".join(f"- {100 * n / features['examples']:.0f} have {what}\n" for what, n in list(features.items())[1:])
    introduction = INTRODUCTION.format(examples=EXAMPLES, real=len(real), features=told.rstrip())
    return f"{introduction}{rows}\n{REFUSALS}{refusals}"


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
    print(f"wrote {TARGET}")
