"""DeepSeek V3.1: `name<｜tool▁sep｜>{...}` between the words that begin and end a call."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tunesmith.core.errors import Problem
from tunesmith.core.types import ToolCall
from tunesmith.render.tools.base import Dialect, DialectRefusal, Found, Piece, Tool
from tunesmith.render.tools.json_forms import read_json, skip, to_json
from tunesmith.render.tools.schemas import Schemas, function_of

__all__ = ["BEGIN", "CALL", "END", "DeepSeekV31"]

BEGIN, END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL = ("<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>")
_NAME = re.compile(re.escape(CALL[0]) + r"([^<>\n]+?)" + re.escape(CALL[1]))


class DeepSeekV31(Dialect):
    name = "deepseek_v3_1"
    refuses = ("a list of tools: the model's template shows none",)
    opens = (BEGIN,)

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        """Nothing: the model's template shows no tools."""
        return []

    def tools_text(self, tools: Sequence[Tool], thinking: bool) -> list[Piece]:
        """Refused: a model that is never shown its tools would learn to guess them."""
        if not tools:
            return []
        raise DialectRefusal(
            Problem(
                "E-RENDER-021",
                f'the tool form "{self.name}" cannot carry a list of tools: the model\'s own template shows it none',
                got=", ".join(str(function_of(tool)["name"]) for tool in tools),
                fix="describe the tools in the system message and take `tools` out of the row (its calls are written), "
                "or name the form of DeepSeek V3 and R1, which shows them: tool_format: deepseek_v3",
            )
        )

    def _write(self, calls: Sequence[ToolCall], earlier: int) -> list[Piece]:
        pieces: list[Piece] = [(BEGIN, True)]
        for call in calls:
            pieces += [(CALL[0], True), (call.name, False), (CALL[1], True)]
            pieces += [(to_json(dict(call.arguments)), False), (CALL[2], True)]
        return [*pieces, (END, True)]

    def _read(self, text: str, start: int, schemas: Schemas) -> Found | None:
        position = start + len(BEGIN)
        calls: list[ToolCall] = []
        while name := _NAME.match(text, skip(text, position)):
            found = read_json(text, name.end())
            if not found or not isinstance(found[0], Mapping):
                return None
            calls.append(ToolCall(name.group(1), found[0]))
            position = skip(text, found[1])
            position += len(CALL[2]) * text.startswith(CALL[2], position)
        end = skip(text, position)
        return (calls, end + len(END) * text.startswith(END, end)) if calls else None
