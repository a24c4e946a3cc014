"""MiniMax M1: JSON objects, one a line, between `<tool_calls>` tags."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.types import ToolCall
from tunesmith.render.tools.base import Dialect, Found, Piece, Tool
from tunesmith.render.tools.json_forms import as_call, quoted, read_json, skip, to_json
from tunesmith.render.tools.schemas import Schemas, wrapped

__all__ = ["MiniMax1"]

_HEAD = "You are provided with these tools:\n<tools>\n"
_TAIL = (
    "</tools>\n\nIf you need to call tools, please respond with <tool_calls></tool_calls> XML tags, and provide "
    "tool-name and json-object of arguments, following the format below:\n<tool_calls>\n"
    '{"name": <tool-name>, "arguments": <args-json-object>}\n...\n</tool_calls>'
)


class MiniMax1(Dialect):
    name = "minimax1"
    set_off = ""
    refuses = ("text beside a call: the model's template leaves it out",)
    opens = ("<tool_calls>",)
    takes_content = False

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        return [(_HEAD, True), ("".join(to_json(wrapped(tool)) + "\n" for tool in tools), False), (_TAIL, True)]

    def _write(self, calls: Sequence[ToolCall], earlier: int) -> list[Piece]:
        pieces: list[Piece] = [("<tool_calls>\n", True)]
        for call in calls:
            pieces += [('{"name": "', True), (quoted(call.name), False), ('", "arguments": ', True)]
            pieces += [(to_json(dict(call.arguments)), False), ("}\n", True)]
        return [*pieces, ("</tool_calls>", True)]

    def _read(self, text: str, start: int, schemas: Schemas) -> Found | None:
        position = start + len("<tool_calls>")
        calls: list[ToolCall] = []
        while found := read_json(text, position):
            call = as_call(found[0])
            if not call:
                return None
            calls.append(call)
            position = found[1]
        end = skip(text, position)
        if not text.startswith("</tool_calls>", end):
            return (calls, end) if end == len(text) else None
        return calls, end + len("</tool_calls>")
