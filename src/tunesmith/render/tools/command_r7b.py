"""Command R7B (12-2024): a JSON list with numbered calls between `<|START_ACTION|>` and `<|END_ACTION|>`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.core.types import ToolCall
from tunesmith.render.tools.base import Dialect, Found, Piece, Tool
from tunesmith.render.tools.json_forms import as_call, quoted, read_json, skip, to_json
from tunesmith.render.tools.schemas import Schemas, function_of

__all__ = ["CommandR7B"]

_BEGIN, _END = "<|START_ACTION|>", "<|END_ACTION|>"


class CommandR7B(Dialect):
    name = "command_r7b"
    refuses = ("text beside a call: the model's template leaves it out",)
    opens = (_BEGIN,)
    takes_content = False

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        """The JSON list in the system prompt; the rules around it are the template's."""
        lines = ",\n".join("    " + _declare(function_of(tool)) for tool in tools)
        return [("[\n", True), (lines, False), ("\n]", True)]

    def call_id(self, call: ToolCall, position: int) -> str | None:
        return str(position)

    def _write(self, calls: Sequence[ToolCall], earlier: int) -> list[Piece]:
        pieces: list[Piece] = [(_BEGIN + "[\n", True)]
        for index, call in enumerate(calls):
            pieces += [(f'    {{"tool_call_id": "{earlier + index}", "tool_name": "', True), (quoted(call.name), False)]
            pieces += [('", "parameters": ', True), (to_json(dict(call.arguments)), False)]
            pieces.append(("},\n" if index < len(calls) - 1 else "}\n", True))
        return [*pieces, ("]" + _END, True)]

    def _read(self, text: str, start: int, schemas: Schemas) -> Found | None:
        found = read_json(text, start + len(_BEGIN))
        if not found or not isinstance(found[0], list):
            return None
        calls = [call for value in found[0] if (call := as_call(value, "tool_name", id_key="tool_call_id"))]
        end = skip(text, found[1])
        closed = text.startswith(_END, end)
        if len(calls) != len(found[0]) or not (closed or end == len(text)):
            return None
        return calls, end + len(_END) * closed


def _declare(function: Mapping[str, Any]) -> str:
    # Texts stand within quotes without being escaped: so the model's own template does it.
    text = f'{{"name": "{function["name"]}", "description": "{function.get("description", "")}", "parameters": '
    return text + to_json(function.get("parameters", {})) + ', "responses": null}'
