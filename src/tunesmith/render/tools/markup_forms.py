"""Calls written as tags around names and values: `<function=NAME><parameter=KEY>value</parameter></function>`.

Values stand there without quotes, so a string is told from a number by the tool's schema alone, and a string that
holds the form's own closing tags may not come back: then the writer refuses it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

from tunesmith.core.types import ToolCall
from tunesmith.render.tools.base import Dialect, Found, Piece
from tunesmith.render.tools.json_forms import to_json
from tunesmith.render.tools.schemas import Schemas, decode

__all__ = ["ArgumentPairs", "NamedParameters", "json_text", "mixed_text", "python_text"]

MARKUP = "a string with the form's own closing tags where they would end the value"
UNTYPED = "a string that reads as a number, a word or an object, where the schema does not say string"


def json_text(value: Any) -> str:
    return value if isinstance(value, str) else to_json(value)


def mixed_text(value: Any) -> str:
    """Objects and lists as JSON, all else as Python writes it: `True`, `None`."""
    return to_json(value) if isinstance(value, dict | list | tuple) else str(value)


def python_text(value: Any) -> str:
    return str(value)


class NamedParameters(Dialect):
    """A block of functions with named parameters. `%` stands for the name, `@` for whether the value is a string."""

    refuses: ClassVar[tuple[str, ...]] = (MARKUP, UNTYPED)
    block: ClassVar[tuple[str, str]]
    """Around the calls."""
    function: ClassVar[tuple[str, str]]
    parameter: ClassVar[tuple[str, str]]
    pad: ClassVar[str] = ""
    """Between a tag and the value."""
    one_block_each: ClassVar[bool] = True
    """Every call has a block of its own; else one block holds all."""
    join: ClassVar[str] = "\n"
    behind: ClassVar[str] = ""
    """What ends the last call: the line end behind it."""

    @staticmethod
    def value(value: Any) -> str:
        return mixed_text(value)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if not hasattr(cls, "parameter"):
            return
        first, last = (re.escape(tag.strip()) for tag in cls.function)
        opening, closing = (re.escape(tag.strip()) for tag in cls.parameter)
        name = '(?P<name>[^\n<>"]+)' if '"' in cls.function[0] else "(?P<name>[^\n<>]+)"
        pad = f"(?:{re.escape(cls.pad)})?"
        cls._function = re.compile(r"\s*" + first.replace("%", name) + r"\s*")
        # A value ends where its closing tag is followed by another parameter or by the function's end.
        follows = rf"(?=\s*(?:{opening.split('%')[0]}|{last}))"
        begins = opening.replace("%", name).replace("@", "(?P<string>true|false)")
        cls._parameter = re.compile(rf"\s*{begins}{pad}(?P<value>.*?){pad}{closing}{follows}", re.DOTALL)
        cls._end = re.compile(r"\s*" + last)
        cls._close = re.compile(r"\s*" + re.escape(cls.block[1].strip()))

    _function: ClassVar[re.Pattern[str]]
    _parameter: ClassVar[re.Pattern[str]]
    _end: ClassVar[re.Pattern[str]]
    _close: ClassVar[re.Pattern[str]]

    def _write(self, calls: Sequence[ToolCall], earlier: int) -> list[Piece]:
        pieces: list[Piece] = []
        first, last = self.block
        for index, call in enumerate(calls):
            if index == 0 or self.one_block_each:
                pieces.append(((self.join if index else "") + first, True))
            pieces += self._write_call(call)
            if index == len(calls) - 1 or self.one_block_each:
                pieces.append((last, True))
        return [*pieces, (self.behind, True)]

    def _write_call(self, call: ToolCall) -> list[Piece]:
        pieces: list[Piece] = []
        before, behind = self.function[0].split("%")
        pieces += [(before, True), (call.name, False), (behind, True)]
        for key, value in call.arguments.items():
            opening, opened = self._opening(value).split("%")
            pieces += [(opening, True), (key, False), (opened + self.pad, True)]
            pieces += [(self.value(value), False), (self.pad + self.parameter[1], True)]
        return [*pieces, (self.function[1], True)]

    def _opening(self, value: Any) -> str:
        return self.parameter[0].replace("@", "true" if isinstance(value, str) else "false")

    def _read(self, text: str, start: int, schemas: Schemas) -> Found | None:
        if text.find(self.function[1].strip(), start) < 0:
            return None
        first = self.block[0].strip()
        position = start + len(first) if first and text.startswith(first, start) else start
        calls: list[ToolCall] = []
        while read := self._read_call(text, position, schemas):
            calls.append(read[0])
            position = read[1]
        if not calls:
            return None
        if self.block[1] and (close := self._close.match(text, position)):
            position = close.end()
        return calls, position + len(self.behind) * text.startswith(self.behind, position)

    def _read_call(self, text: str, position: int, schemas: Schemas) -> tuple[ToolCall, int] | None:
        function = self._function.match(text, position)
        if not function:
            return None
        name, position = function["name"], function.end()
        arguments: dict[str, Any] = {}
        while parameter := self._parameter.match(text, position):
            key = parameter["name"]
            string = parameter.groupdict().get("string") == "true"
            arguments[key] = self._decode(
                parameter["value"], frozenset({"string"}) if string else schemas.kinds(name, key)
            )
            position = parameter.end()
        end = self._end.match(text, position)
        return (ToolCall(name, arguments), end.end()) if end else None

    def _decode(self, text: str, kinds: frozenset[str]) -> Any:
        return decode(text, kinds)


class ArgumentPairs(Dialect):
    """`<tool_call>NAME<arg_key>KEY</arg_key><arg_value>value</arg_value></tool_call>`."""

    refuses = (MARKUP, UNTYPED)
    opens = ("<tool_call>",)
    after_name: ClassVar[str]
    between: ClassVar[str]
    """Between a key and its value."""
    after_pair: ClassVar[str]
    join: ClassVar[str]
    behind: ClassVar[str] = ""

    def _write(self, calls: Sequence[ToolCall], earlier: int) -> list[Piece]:
        pieces: list[Piece] = []
        for index, call in enumerate(calls):
            pieces += [
                ((self.join if index else "") + "<tool_call>", True),
                (call.name, False),
                (self.after_name, True),
            ]
            for key, value in call.arguments.items():
                pieces += [
                    ("<arg_key>", True),
                    (key, False),
                    ("</arg_key>" + self.between + "<arg_value>", True),
                    (json_text(value), False),
                    ("</arg_value>" + self.after_pair, True),
                ]
            pieces.append(("</tool_call>", True))
        return [*pieces, (self.behind, True)]

    def _read(self, text: str, start: int, schemas: Schemas) -> Found | None:
        head = _PAIRS_HEAD.match(text, start)
        if not head:
            return None
        name, position = head.group(1), head.end()
        arguments: dict[str, Any] = {}
        while pair := _PAIR.match(text, position):
            arguments[pair.group(1)] = decode(pair.group(2), schemas.kinds(name, pair.group(1)))
            position = pair.end()
        end = _PAIRS_END.match(text, position)
        if not end or not (arguments or end.group().strip()):
            return None
        return [ToolCall(name, arguments)], end.end() + len(self.behind) * text.startswith(self.behind, end.end())


_PAIRS_HEAD = re.compile(r"<tool_call>\s*([^\s<>{]+)")
_PAIR = re.compile(
    r"\s*<arg_key>([^<>]+)</arg_key>\s*<arg_value>(.*?)</arg_value>(?=\s*(?:<arg_key>|</tool_call>|$))", re.DOTALL
)
_PAIRS_END = re.compile(r"\s*(?:</tool_call>|$)")
