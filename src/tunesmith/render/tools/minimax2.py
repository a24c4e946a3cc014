"""MiniMax M2: `<invoke>` tags with named parameters in one block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith.render.tools.base import Piece, Tool
from tunesmith.render.tools.json_forms import to_json
from tunesmith.render.tools.markup_forms import NamedParameters, json_text
from tunesmith.render.tools.schemas import function_of

__all__ = ["MiniMax2"]

_HEAD = (
    "# Tools\nYou may call one or more tools to assist with the user query.\n"
    "Here are the tools available in JSONSchema format:\n\n<tools>\n"
)
_TAIL = (
    "</tools>\n\nWhen making tool calls, use XML format to invoke tools and pass parameters:\n\n<minimax:tool_call>\n"
    '<invoke name="tool-name-1">\n<parameter name="param-key-1">param-value-1</parameter>\n'
    '<parameter name="param-key-2">param-value-2</parameter>\n...\n</invoke>\n</minimax:tool_call>'
)


class MiniMax2(NamedParameters):
    name = "minimax2"
    opens = ("<minimax:tool_call>", '<invoke name="')
    block = ("<minimax:tool_call>\n", "</minimax:tool_call>")
    function = ('<invoke name="%">\n', "</invoke>\n")
    parameter = ('<parameter name="%">', "</parameter>\n")
    one_block_each = False
    gap, gap_always = "\n", True

    @staticmethod
    def value(value: Any) -> str:
        return json_text(value)

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        pieces: list[Piece] = [(_HEAD, True)]
        for tool in tools:
            pieces += [("<tool>", True), (to_json(function_of(tool)), False), ("</tool>\n", True)]
        return [*pieces, (_TAIL, True)]
