"""MiniCPM 5: `<function>` tags with named parameters; strings with markup or line ends stand in CDATA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith.render.tools.base import Piece, Tool
from tunesmith.render.tools.json_forms import to_json
from tunesmith.render.tools.markup_forms import UNTYPED, NamedParameters
from tunesmith.render.tools.schemas import decode, wrapped

__all__ = ["MiniCpm5"]

_HEAD = "# Tools\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>"
_TAIL = (
    "\n</tools>\n\nTool usage guidelines:\n"
    "- You may call zero or more functions. If no function calls are needed, just answer normally and do not include "
    "any <function ... </function>.\n"
    "- When calling a function, return an XML object within <function ... </function> using:\n"
    '<function name="function-name"><param name="param-name">param-value</param></function>\n'
    "- param-value may be multi-line. If it contains <, & or newline characters, wrap it in a CDATA block: "
    '<param name="param-name"><![CDATA[...multi-line value...]]></param>'
)
_CDATA = ("<![CDATA[", "]]>")


class MiniCpm5(NamedParameters):
    name = "minicpm5"
    refuses = ("a string with `]]></param>` where it would end the value", UNTYPED)
    opens = ('<function name="',)
    block = ("", "")
    function = ('<function name="%">', "</function>")
    parameter = ('<param name="%">', "</param>")
    gap = "\n"

    @staticmethod
    def value(value: Any) -> str:
        if isinstance(value, str) and any(mark in value for mark in "<&\n"):
            return _CDATA[0] + value + _CDATA[1]
        return str(value)

    def _decode(self, text: str, kinds: frozenset[str]) -> Any:
        if text.startswith(_CDATA[0]) and text.endswith(_CDATA[1]):
            return text[len(_CDATA[0]) : -len(_CDATA[1])]
        return decode(text, kinds)

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        return [(_HEAD, True), ("".join("\n" + to_json(wrapped(tool)) for tool in tools), False), (_TAIL, True)]
