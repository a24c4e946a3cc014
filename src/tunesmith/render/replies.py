"""Model text back to a message: thoughts and tool calls split off."""

from __future__ import annotations

import json
import re

from tunesmith.core.types import Message, ToolCall
from tunesmith.render.tools import get_dialect

__all__ = ["parse_reply"]

_TOOL_CALL = re.compile(r"\s*<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)


def parse_reply(text: str, thinking: tuple[str, str], stops: tuple[str, ...], dialect: str | None = None) -> Message:
    """An assistant message from what a model wrote. A thought may lack its opening word, where the template's
    prompt has written it already; an unfinished thought is all thought. `dialect`: the form of its tool calls; the
    most common one if it is not known. What is no well-formed call stays text."""
    for stop in stops:
        text = text.split(stop, 1)[0]
    reasoning, content = _split_thought(text, *thinking)
    if dialect is not None:
        parsed = get_dialect(dialect).parse(content)
        return Message("assistant", parsed.content, reasoning=reasoning, tool_calls=parsed.calls)
    calls: list[ToolCall] = []

    def take(match: re.Match[str]) -> str:
        call = _read_call(match.group(1))
        if call is None:
            return match.group()
        calls.append(call)
        return ""

    content = _TOOL_CALL.sub(take, content)
    return Message("assistant", content, reasoning=reasoning, tool_calls=tuple(calls))


def _split_thought(text: str, opening: str, closing: str) -> tuple[str | None, str]:
    begins = text.lstrip().startswith(opening)
    thought, found, content = text.partition(closing)
    if not found and not begins:
        return None, text
    thought = thought.lstrip().removeprefix(opening).strip("\n")
    return thought or None, content.lstrip("\n")


def _read_call(text: str) -> ToolCall | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", {})
    return ToolCall(value["name"], arguments) if isinstance(arguments, dict) else None
