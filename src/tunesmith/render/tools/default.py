"""LlamaFactory's form for models without one of their own: `Action:` and `Action Input:` lines, as in ReAct.

The words for the prompt are LlamaFactory's (Apache-2.0), because adapters were trained on them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.core.types import ToolCall
from tunesmith.render.tools.base import Dialect, Found, Piece, Tool
from tunesmith.render.tools.json_forms import read_json, to_json
from tunesmith.render.tools.schemas import Schemas, function_of
from tunesmith.render.tools.signatures import argument_schemas, required_of

__all__ = ["Default"]

_CALL = re.compile(r"Action:[ \t]*([^\n]+?)[ \t]*\n+Action Input:[ \t]*(?:```(?:json)?)?")


class Default(Dialect):
    name = "default"
    set_off = ""
    refuses = ()
    opens = ("Action:",)
    gap = "\n"

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        functions = [function_of(tool) for tool in tools]
        return [
            ("You have access to the following tools:\n", True),
            ("".join(map(_declare, functions)), False),
            ("Use the following format if using a tool:\n```\nAction: tool name (one of [", True),
            (", ".join(str(function["name"]) for function in functions), False),
            (
                "])\nAction Input: the input to the tool, in a JSON format representing the kwargs "
                '(e.g. ```{"input": "hello world", "num_beams": 5}```)\n```\n',
                True,
            ),
        ]

    def _write(self, calls: Sequence[ToolCall], earlier: int) -> list[Piece]:
        pieces: list[Piece] = []
        for index, call in enumerate(calls):
            pieces += [(("\n" if index else "") + "Action: ", True), (call.name, False)]
            pieces += [("\nAction Input: ", True), (to_json(dict(call.arguments)), False)]
        return pieces

    def _read(self, text: str, start: int, schemas: Schemas) -> Found | None:
        head = _CALL.match(text, start)
        found = read_json(text, head.end()) if head else None
        if not head or not found or not isinstance(found[0], Mapping):
            return None
        return [ToolCall(head.group(1), found[0])], found[1]


def _declare(function: Mapping[str, Any]) -> str:
    required = required_of(function)
    text = f"> Tool Name: {function['name']}\nTool Description: {function.get('description', '')}\nTool Args:\n"
    for key, schema in argument_schemas(function).items():
        text += f"  - {key} ({schema.get('type', '')}{', required' if key in required else ''})"
        text += f": {schema.get('description', '')}"
        if schema.get("enum"):
            text += f", should be one of [{', '.join(map(str, schema['enum']))}]"
        if isinstance(schema.get("items"), Mapping) and schema["items"]:
            text += f", where each item should be {schema['items'].get('type', '')}"
        text += "\n"
    return text + "\n"
