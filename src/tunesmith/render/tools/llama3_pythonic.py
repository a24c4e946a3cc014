"""Llama 3.2 with calls as a Python list, by the prompt that vLLM publishes for it
(`examples/tool_chat_template_llama3.2_pythonic.jinja`).

Differs from it on purpose: that template writes strings without quotes, which is not the Python list it asks for.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.types import ToolCall
from tunesmith.render.tools.base import Dialect, Found, Piece, Tool
from tunesmith.render.tools.json_forms import to_json
from tunesmith.render.tools.literals import python_literal, read_calls
from tunesmith.render.tools.schemas import Schemas, wrapped

__all__ = ["Llama3Pythonic"]

_HEAD = (
    "You have access to the following functions. To call functions, please respond with a python list of the calls. "
    "Respond in the format [func_name1(params_name1=params_value1, params_name2=params_value2...), "
    "func_name2(params)] Do not use variables.\n\n"
)


class Llama3Pythonic(Dialect):
    name = "llama3_pythonic"
    refuses = (
        "text beside a call: the template leaves it out",
        "names with brackets, quotes, commas, equals signs or blanks",
    )
    opens = ("<|python_tag|>[", "[")
    takes_content = False
    in_content = False
    patience = 10_000  # any list in front begins so

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        return [(_HEAD, True), ("".join(to_json(wrapped(tool), indent=4) + "\n\n" for tool in tools), False)]

    def _write(self, calls: Sequence[ToolCall], earlier: int) -> list[Piece]:
        pieces: list[Piece] = [("[", True)]
        for index, call in enumerate(calls):
            pieces += [(", " if index else "", True), (call.name, False), ("(", True)]
            arguments = ", ".join(f"{key}={python_literal(value)}" for key, value in call.arguments.items())
            pieces += [(arguments, False), (")", True)]
        return [*pieces, ("]", True)]

    def _read(self, text: str, start: int, schemas: Schemas) -> Found | None:
        try:
            return read_calls(text, text.index("[", start))
        except ValueError:
            return None
