"""Laguna: GLM 4.6's form of a call, and a line end behind each."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.render.tools.base import Piece, Tool
from tunesmith.render.tools.json_forms import to_json
from tunesmith.render.tools.markup_forms import ArgumentPairs
from tunesmith.render.tools.schemas import wrapped

__all__ = ["Laguna"]

_HEAD = (
    "### Tools\n\nYou may call functions to assist with the user query.\n"
    "All available function signatures are listed below:\n<available_tools>\n"
)
_TAIL = (
    "</available_tools>\n\nFor each function call, return an unescaped XML-like object with function name and "
    "arguments within '<tool_call>' and '</tool_call>' tags, like here:\n<tool_call>function-name\n"
    "<arg_key>argument-key</arg_key>\n<arg_value>value-of-argument-key</arg_value>\n</tool_call>"
)


class Laguna(ArgumentPairs):
    name = "laguna"
    after_name, between, after_pair, join = "\n", "\n", "\n", "\n"
    behind = "\n"
    gap = "\n"

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        return [(_HEAD, True), ("".join(to_json(wrapped(tool)) + "\n" for tool in tools), False), (_TAIL, True)]
