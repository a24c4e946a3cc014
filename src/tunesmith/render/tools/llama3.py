"""Llama 3 as LlamaFactory writes it: one JSON object, or a list of them for several calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tunesmith.core.types import ToolCall
from tunesmith.render.tools.base import Found, Piece, Tool
from tunesmith.render.tools.json_forms import JsonList, as_call, quoted, read_json, to_json
from tunesmith.render.tools.schemas import Schemas, wrapped

__all__ = ["Llama3"]

_HEAD = (
    "You have access to the following functions. To call a function, please respond with JSON for a function call. "
    'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}. '
    "Do not use variables.\n\n"
)


class Llama3(JsonList):
    name = "llama3"
    set_off = ""
    refuses: ClassVar[tuple[str, ...]] = ()
    opens = ("<|python_tag|>", "[", "{")
    before = ""
    arguments_key = "parameters"
    gap = "\n"
    in_content = False
    patience = 10_000  # any JSON or code in front has such beginnings

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        return [(_HEAD, True), ("".join(to_json(wrapped(tool), indent=4) + "\n\n" for tool in tools), False)]

    def _write(self, calls: Sequence[ToolCall], earlier: int) -> list[Piece]:
        if len(calls) > 1:
            return super()._write(calls, earlier)
        call = calls[0]
        return [
            ('{"name": "', True),
            (quoted(call.name), False),
            ('", "parameters": ', True),
            (to_json(dict(call.arguments)), False),
            ("}", True),
        ]

    def _read(self, text: str, start: int, schemas: Schemas) -> Found | None:
        opening = "<|python_tag|>"
        marked = text.startswith(opening, start)
        found = read_json(text, start + len(opening) * marked)
        if not found:
            return None
        values = found[0] if isinstance(found[0], list) else [found[0]]
        calls = [call for value in values if _is_call(value) and (call := as_call(value))]
        return (calls, found[1]) if calls and len(calls) == len(values) else None


def _is_call(value: object) -> bool:
    # Without a marker any JSON in a reply might be meant: only what has both keys is a call.
    return isinstance(value, dict) and ("parameters" in value or "arguments" in value)
