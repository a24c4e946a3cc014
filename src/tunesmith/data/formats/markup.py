"""Thoughts and tool calls that stand as markup in an assistant's text, taken apart into structure.

Most reasoning and tool data is written in the form of one family of models. Parsed, one dataset serves every model:
the template writes thoughts and calls again in its own form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from tunesmith.core.types import Message, ToolCall
from tunesmith.render.tools import DIALECTS, get_dialect
from tunesmith.render.tools.base import join_pieces
from tunesmith.render.tools.content import parse_content

__all__ = ["THOUGHT_ENDS", "THOUGHT_MARKS", "split_thought", "structured"]

THOUGHT_MARKS = (
    ("<think>", "</think>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel>thought", "<channel|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
)
"""Words around a thought, as the templates of the catalog write them."""

THOUGHT_ENDS = {"[BEGIN FINAL RESPONSE]": "Here are my reasoning steps:"}
"""Words behind a thought that begins with the text, and what its template may have written before it."""

_THOUGHT = re.compile(
    r"\s*(?:" + "|".join(f"{re.escape(first)}(.*?){re.escape(last)}" for first, last in THOUGHT_MARKS) + ")",
    re.DOTALL,
)


def split_thought(text: str) -> tuple[str | None, str]:
    """(thought, rest) of a text that opens with `<think>...</think>` or its like; (None, text) of any other."""
    for end, opening in THOUGHT_ENDS.items():
        if end in text:
            thought, _, rest = text.partition(end)
            return thought.strip("\n").removeprefix(opening).strip("\n"), rest.lstrip("\n")
    if text[:1].isalnum():  # most texts: not even a blank before a mark
        return None, text
    found = _THOUGHT.match(text)
    if found is None:
        return None, text
    thought = found[found.lastindex or 0].strip("\n")
    return thought, text[found.end() :].lstrip("\n")


def structured(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[Message]:
    """The messages with calls that stand as markup in assistants' texts taken out into `tool_calls`; `written` keeps
    such a text for templates that have no form for calls.

    A text that goes on where its form has no place for text (mostly behind its calls) stays as it is. Without `tools`,
    forms that prose may have too (`Action:` lines) are not looked for.
    """
    return [
        _structured(message, tools) if message.role == "assistant" and _may_call(message.content, tools) else message
        for message in messages
    ]


def _may_call(text: str, tools: Sequence[Mapping[str, Any]]) -> bool:
    """A quick look before the search: without tools all forms open with one of these signs (see `_forms`)."""
    return bool(tools) or "<" in text or "[" in text


def _structured(message: Message, tools: Sequence[Mapping[str, Any]]) -> Message:
    names, opening = _forms(bool(tools))
    if message.tool_calls or not opening.search(message.content):
        return message
    found, name = parse_content(message.content, names, tools)
    if name is None:
        return message
    content, misplaced = found.content_before, found.content_after
    if _writes_content_behind(name):
        content, misplaced = misplaced, content
    if misplaced.strip():
        return message
    return replace(message, content=content.rstrip(), tool_calls=found.calls, written=message.content)


@cache
def _writes_content_behind(name: str) -> bool:
    dialect = get_dialect(name)
    return dialect.takes_content and join_pieces(dialect.write_calls([ToolCall("f", {})], "x")).endswith("x")


@cache
def _forms(with_tools: bool) -> tuple[tuple[str, ...], re.Pattern[str]]:
    """Names of the dialects to look for, and a pattern without which none of them has a call."""
    opens = {name: get_dialect(name).opens for name in DIALECTS if get_dialect(name).in_content}
    if not with_tools:
        opens = {name: words for name, words in opens.items() if all(word[0] in "<[" for word in words)}
    words = sorted({word for found in opens.values() for word in found})
    return tuple(opens), re.compile("|".join(map(re.escape, words)))
