"""Kimi K2: `functions.NAME:NUMBER` and JSON between the words of a section."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tunesmith.core.types import ToolCall
from tunesmith.render.tools.base import Dialect, Found, Piece, Tool
from tunesmith.render.tools.json_forms import read_json, skip, to_json
from tunesmith.render.tools.schemas import Schemas, wrapped

__all__ = ["KimiK2"]

_BEGIN, _END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
_HEAD = re.compile(r"<\|tool_call_begin\|>\s*((?:functions\.)?([^<>|\n]+?)(?::\d+)?)\s*<\|tool_call_argument_begin\|>")
_TAIL = "<|tool_call_end|>"


class KimiK2(Dialect):
    name = "kimi_k2"
    refuses = ()
    opens = (_BEGIN,)

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        """The content of the message `tool_declare`."""
        return [(to_json([wrapped(tool) for tool in tools]), False)]

    def call_id(self, call: ToolCall, position: int) -> str | None:
        return f"functions.{call.name}:{position}"

    def _write(self, calls: Sequence[ToolCall], earlier: int) -> list[Piece]:
        pieces: list[Piece] = [(_BEGIN, True)]
        for index, call in enumerate(calls):
            pieces += [("<|tool_call_begin|>functions.", True), (call.name, False)]
            pieces += [(f":{earlier + index}<|tool_call_argument_begin|>", True)]
            pieces += [(to_json(dict(call.arguments)), False), (_TAIL, True)]
        return [*pieces, (_END, True)]

    def _read(self, text: str, start: int, schemas: Schemas) -> Found | None:
        position = start + len(_BEGIN)
        calls: list[ToolCall] = []
        while head := _HEAD.match(text, skip(text, position)):
            found = read_json(text, head.end())
            if not found or not isinstance(found[0], Mapping):
                return None
            calls.append(ToolCall(head.group(2), found[0], head.group(1)))
            position = skip(text, found[1])
            position += len(_TAIL) * text.startswith(_TAIL, position)
        end = skip(text, position)
        return (calls, end + len(_END) * text.startswith(_END, end)) if calls else None
