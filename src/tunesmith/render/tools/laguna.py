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
_RULES = (
    "</available_tools>\n\n{before}For each function call, return an unescaped XML-like object with function name and "
    "arguments within '<tool_call>' and '</tool_call>' tags, like here:\n{thought}<tool_call>function-name\n"
    "<arg_key>argument-key</arg_key>\n<arg_value>value-of-argument-key</arg_value>\n</tool_call>"
)
_PLAIN = _RULES.format(before="", thought="")
_THINKING = _RULES.format(
    before="Wrap your thinking in '<think>', '</think>' tags, followed by a function call. ",
    thought="<think> your thoughts here </think>\n",
)


class Laguna(ArgumentPairs):
    name = "laguna"
    after_name, between, after_pair, join = "\n", "\n", "\n", "\n"
    behind = "\n"
    gap = "\n"

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        return self.tools_text(tools, thinking=False)

    def tools_text(self, tools: Sequence[Tool], thinking: bool) -> list[Piece]:
        declared = "".join(to_json(wrapped(tool)) + "\n" for tool in tools)
        return [(_HEAD, True), (declared, False), (_THINKING if thinking else _PLAIN, True)]
