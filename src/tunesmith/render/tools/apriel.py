"""Apriel 1.6: a JSON list between `<tool_calls>` tags, with ids."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.types import ToolCall
from tunesmith.render.tools.base import Piece, Tool
from tunesmith.render.tools.json_forms import JsonList
from tunesmith.render.tools.schemas import wrapped

__all__ = ["Apriel"]

_I = " " * 8
_HEAD = (
    "You are provided with function signatures within <available_tools></available_tools> XML tags.\n"
    f"{_I}You may call one or more functions to assist with the user query.\n"
    f"{_I}Don't make assumptions about the arguments. You should infer the argument values from previous\n"
    f"{_I}user responses and the system message.\n"
    f"{_I}Here are the available tools: \n{_I}<available_tools>\n"
)
_TAIL = (
    f"{_I}\n{_I}</available_tools>.\n\n"
    f"{_I}Return all function calls as a list of JSON objects within <tool_calls></tool_calls> XML tags.\n"
    f"{_I}Each JSON object should contain a function name and arguments as follows:\n"
    f"{_I}<tool_calls>[\n"
    f'{_I}    {{"name": <function-name-1>, "arguments": <args-dict-1>}},\n'
    f'{_I}    {{"name": <function-name-2>, "arguments": <args-dict-2>}},\n'
    f"{_I}    ...\n{_I}]</tool_calls>"
)


class Apriel(JsonList):
    name = "apriel"
    refuses = ()
    opens = ("<tool_calls>",)
    before, behind = "<tool_calls>", "</tool_calls>"
    gap, gap_always = "\n", True
    writes_ids = True

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        # Python's form of the schema, as the model's own template writes it.
        return [(_HEAD, True), ("".join(str(dict(wrapped(tool))) for tool in tools), False), (_TAIL, True)]

    def call_id(self, call: ToolCall, position: int) -> str | None:
        return call.id
