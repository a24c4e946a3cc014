"""DeepSeek V3 and R1: the arguments stand in a JSON code block behind the name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tunesmith.core.types import ToolCall
from tunesmith.render.tools.base import Dialect, Found, Piece, Tool
from tunesmith.render.tools.deepseek_v3_1 import BEGIN, CALL, END
from tunesmith.render.tools.json_forms import read_json, skip, to_json
from tunesmith.render.tools.schemas import Schemas, function_of

__all__ = ["DeepSeekV3"]

_HEAD = re.compile(re.escape(CALL[0]) + r"\w*" + re.escape(CALL[1]) + r"([^<>\n]+)\n```(?:json)?\n")
_TAIL = re.compile(r"\s*```\s*" + re.escape(CALL[2]))


class DeepSeekV3(Dialect):
    name = "deepseek_v3"
    refuses = ()
    opens = (BEGIN,)

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        """As the R1 template of llama.cpp does; the model's own writes none."""
        schemas = to_json([function_of(tool) for tool in tools], indent=2)
        head = "You can call any of the following function tools to satisfy the user's requests: "
        tail = (
            f"\n\nExample function tool call syntax:\n\n{BEGIN}{CALL[0]}function{CALL[1]}example_function_name\n"
            f'```json\n{{\n  "arg1": "some_value"\n  ...\n}}\n```\n{CALL[2]}{END}\n\n'
        )
        return [(head, True), (schemas, False), (tail, True)]

    def _write(self, calls: Sequence[ToolCall], earlier: int) -> list[Piece]:
        pieces: list[Piece] = [(BEGIN, True)]
        for index, call in enumerate(calls):
            pieces += [(("\n" if index else "") + CALL[0] + "function" + CALL[1], True), (call.name, False)]
            pieces += [("\n```json\n", True), (to_json(dict(call.arguments)), False), ("\n```" + CALL[2], True)]
        return [*pieces, (END, True)]

    def _read(self, text: str, start: int, schemas: Schemas) -> Found | None:
        position = start + len(BEGIN)
        calls: list[ToolCall] = []
        while head := _HEAD.match(text, skip(text, position)):
            found = read_json(text, head.end())
            tail = _TAIL.match(text, found[1]) if found else None
            if not found or not tail or not isinstance(found[0], Mapping):
                return None
            calls.append(ToolCall(head.group(1), found[0]))
            position = tail.end()
        end = skip(text, position)
        return (calls, end + len(END) * text.startswith(END, end)) if calls else None
