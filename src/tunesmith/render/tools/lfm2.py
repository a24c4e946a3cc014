"""LFM2: a list of calls in Python's form between `<|tool_call_start|>` and `<|tool_call_end|>`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from tunesmith.core.types import ToolCall
from tunesmith.render.tools.base import Dialect, Found, Piece, Tool
from tunesmith.render.tools.json_forms import skip, to_json
from tunesmith.render.tools.literals import Reader, python_literal, read_calls, read_literal
from tunesmith.render.tools.schemas import Schemas, wrapped

__all__ = ["BEGIN", "END", "Lfm2"]

BEGIN, END = "<|tool_call_start|>", "<|tool_call_end|>"


class Lfm2(Dialect):
    name = "lfm2"
    set_off = ""
    refuses: ClassVar[tuple[str, ...]] = ("names with brackets, quotes, commas, equals signs or blanks",)
    opens = (BEGIN,)
    read_value: Reader = staticmethod(read_literal)

    @staticmethod
    def value(value: Any) -> str:
        return python_literal(value)

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        schemas = ", ".join(to_json(wrapped(tool)) for tool in tools)
        return [("List of tools: <|tool_list_start|>[", True), (schemas, False), ("]<|tool_list_end|>", True)]

    def _write(self, calls: Sequence[ToolCall], earlier: int) -> list[Piece]:
        pieces: list[Piece] = [(BEGIN + "[", True)]
        for index, call in enumerate(calls):
            pieces += [(", " if index else "", True), (call.name, False), ("(", True)]
            arguments = ", ".join(f"{key}={self.value(value)}" for key, value in call.arguments.items())
            pieces += [(arguments, False), (")", True)]
        return [*pieces, ("]" + END, True)]

    def _read(self, text: str, start: int, schemas: Schemas) -> Found | None:
        try:
            calls, position = read_calls(text, start + len(BEGIN), self.read_value)
        except ValueError:
            return None
        end = skip(text, position)
        return calls, end + len(END) * text.startswith(END, end)
