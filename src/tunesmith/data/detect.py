"""Guess the format and the columns of a file that has no entry in dataset_info.json, from its first rows.

NAMES says which columns may hold what; LAYOUTS which of them, of which shape, make a format fit for a kind of example.
The first layout that fits is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith.data.formats.base import KINDS
from tunesmith.data.formats.messages import ROLES

__all__ = ["LAYOUTS", "NAMES", "Layout", "detect", "fitting", "lacking", "unreadable"]

Rows = Sequence[Mapping[str, Any]]

# Names that stand for one meaning, the likeliest first. `instruction` before `prompt`: rows with both have the task
# there. A meaning that is not listed goes by its own name.
NAMES = {
    "prompt": ("instruction", "prompt", "question", "query", "problem"),
    "response": ("output", "response", "answer", "completion", "solution"),
    "query": ("input", "context"),
    "messages": ("messages", "conversations", "conversation"),
    "chosen": ("chosen", "chosen_response", "preferred"),
    "rejected": ("rejected", "rejected_response", "dispreferred"),
    "kto_tag": ("kto_tag", "label", "liked"),
}
DOCUMENT = ("text", "content")
MEDIA = {"images": ("images", "image"), "videos": ("videos", "video"), "audios": ("audios", "audio")}

# Shapes of values. Lists of messages go by the key that says who speaks, and by whether they end with a question.
ROLE, FROM = ("role",), ("from",)
ROLE_ASKED, FROM_ASKED = ("role, asked",), ("from, asked",)
ROLES_, FROMS = ROLE + ROLE_ASKED, FROM + FROM_ASKED
LISTS = ROLES_ + FROMS
VALUE = ("text", "message", "null", "other")
"""Anything but a list of messages. What is not text is told row by row, which says more than that nothing fits."""
ANSWER = VALUE + LISTS


@dataclass(frozen=True, slots=True)
class Layout:
    """A format and the column for each meaning."""

    format: str
    columns: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.format} ({', '.join(f'{meaning}: {column}' for meaning, column in self.columns.items())})"


@dataclass(frozen=True, slots=True)
class Rule:
    """`needs`: meaning -> the shapes that its column may have; `may`: meanings that are read where they are there.
    `format` None: rows like these are nothing for the kind, whatever comes below."""

    kind: str
    format: str | None
    needs: Mapping[str, tuple[str, ...]]
    may: tuple[str, ...] = ("system", "tools", *MEDIA)
    names: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: NAMES)


_ALPACA = ("query", "history", "system", "tools", *MEDIA)
_BESIDE_A_PAIR = ("system", "tools", "margin", *MEDIA)
_PAIR = {"chosen": ANSWER, "rejected": ANSWER}

LAYOUTS = (
    Rule("document", "text", {"prompt": VALUE}, (), {"prompt": DOCUMENT}),
    Rule("preference", "trl", {"prompt": ("text", *LISTS), "chosen": LISTS, "rejected": LISTS}, _BESIDE_A_PAIR),
    Rule("preference", "openai", {"messages": ROLE_ASKED, **_PAIR}, _BESIDE_A_PAIR),
    Rule("preference", "sharegpt", {"messages": FROM_ASKED, **_PAIR}, _BESIDE_A_PAIR),
    Rule("preference", "trl", {"prompt": LISTS, **_PAIR}, _BESIDE_A_PAIR),
    Rule("preference", "alpaca", {"prompt": VALUE, "chosen": VALUE, "rejected": VALUE}, (*_ALPACA, "margin")),
    Rule("preference", "trl", {"chosen": LISTS, "rejected": LISTS}, _BESIDE_A_PAIR),
    Rule("feedback", "openai", {"messages": ROLES_, "kto_tag": VALUE}),
    Rule("feedback", "sharegpt", {"messages": FROMS, "kto_tag": VALUE}),
    Rule("feedback", "trl", {"prompt": LISTS, "response": ANSWER, "kto_tag": VALUE}),
    Rule("feedback", "trl", {"prompt": VALUE, "response": LISTS, "kto_tag": VALUE}),
    Rule("feedback", "alpaca", {"prompt": VALUE, "response": VALUE, "kto_tag": VALUE}, _ALPACA),
    Rule("chat", None, {"messages": ROLE_ASKED + FROM_ASKED, **_PAIR}),
    Rule("chat", "openai", {"messages": ROLES_}),
    Rule("chat", "sharegpt", {"messages": FROMS}),
    Rule("chat", "trl", {"prompt": LISTS, "response": ANSWER}),
    Rule("chat", "trl", {"prompt": VALUE, "response": LISTS}),
    Rule("chat", "alpaca", {"prompt": VALUE, "response": VALUE}, _ALPACA),
    Rule("prompt", "openai", {"messages": ROLES_}),
    Rule("prompt", "sharegpt", {"messages": FROMS}),
    Rule("prompt", "trl", {"prompt": LISTS}),
    Rule("prompt", "alpaca", {"prompt": VALUE}, _ALPACA),
)


def detect(rows: Rows, stage: str) -> Layout | None:
    """The layout that the first rows show, None where they show none for the stage."""
    shapes = _shapes(rows)
    for rule in LAYOUTS:
        if rule.kind == KINDS[stage] and (columns := _columns(rule, shapes)):
            return Layout(rule.format, columns) if rule.format else None
    return None


def fitting(rows: Rows) -> dict[str, Layout]:
    """Stage -> layout for all stages that could use these rows."""
    return {stage: layout for stage in KINDS if stage != "prompt" and (layout := detect(rows, stage))}


def lacking(rows: Rows, stage: str) -> list[str]:
    """The meanings that no column has, of the layout of the stage that lacks the fewest and has some."""
    names = _shapes(rows)
    found: list[list[str]] = []
    for rule in LAYOUTS:
        if rule.kind == KINDS[stage] and rule.format:
            told = {meaning: names.keys() & set(rule.names.get(meaning, (meaning,))) for meaning in rule.needs}
            missing = [meaning for meaning, columns in told.items() if not columns]
            found += [missing] if 0 < len(missing) < len(told) else []
    return min(found, key=len, default=[])


def unreadable(rows: Rows, stage: str) -> str | None:
    """What the first rows hold that the stage cannot use, so that training on the rest would be wrong."""
    names = {name for row in rows for name, value in row.items() if value}
    media = [name for every in MEDIA.values() for name in every if name in names]
    return f'a column "{media[0]}"; stage {stage} trains on text only' if media and KINDS[stage] == "document" else None


def _columns(rule: Rule, shapes: Mapping[str, str]) -> dict[str, str] | None:
    """Meaning -> column, in the order of the meanings of the format; None where a needed one is missing."""
    found: dict[str, str] = {}
    for meaning, fit in rule.needs.items():
        names = rule.names.get(meaning, (meaning,))
        column = next((name for name in names if shapes.get(name) in fit), None)
        if column is None:
            return None
        found[meaning] = column
        if meaning == "prompt" and "query" in rule.may:
            found.update(_optional(("query",), shapes))
    return found | _optional([meaning for meaning in rule.may if meaning != "query"], shapes)


def _optional(meanings: Sequence[str], shapes: Mapping[str, str]) -> dict[str, str]:
    known = {**NAMES, **MEDIA}
    empty = {name for name, shape in shapes.items() if shape == "null"}
    found: dict[str, str] = {}
    for meaning in meanings:
        names = [name for name in known.get(meaning, (meaning,)) if name in shapes]
        if names and not (meaning in MEDIA and names[0] in empty):
            found[meaning] = names[0]
    return found


def _shapes(rows: Rows) -> dict[str, str]:
    """Column -> the shape of its first value that tells one."""
    shapes: dict[str, str] = {}
    for row in rows:
        for name, value in row.items():
            if shapes.get(name, "null") == "null":
                shapes[name] = _shape(value)
    return shapes


def _shape(value: Any) -> str:
    if value is None or value == []:
        return "null"
    if isinstance(value, str):
        return "text"
    first = value[0] if isinstance(value, list) else value
    key = next((key for key in ("role", "from") if isinstance(first, dict) and key in first), None)
    if key is None:
        return "other"
    if first is value:
        return "message"
    last = value[-1].get(key) if isinstance(value[-1], dict) else None
    answered = isinstance(last, str) and ROLES.get(last) in ("assistant", "call")
    return key if answered else f"{key}, asked"
