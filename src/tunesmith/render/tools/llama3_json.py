"""Llama 3.1, 3.2 and 3.3 by their own templates: one JSON object, one call a turn."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.render.tools.base import Piece, Tool
from tunesmith.render.tools.json_forms import to_json
from tunesmith.render.tools.llama3 import Llama3
from tunesmith.render.tools.schemas import wrapped

__all__ = ["Llama3Json"]

_HEAD = (
    "Given the following functions, please respond with a JSON for a function call with its proper arguments that best "
    'answers the given prompt.\n\nRespond in the format {"name": function name, "parameters": dictionary of argument '
    "name and its value}.Do not use variables.\n\n"
)


class Llama3Json(Llama3):
    name = "llama3_json"
    refuses = ("more than one call in a turn", "text beside a call: the model's template leaves it out")
    max_calls = 1
    takes_content = False

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        return [(_HEAD, True), ("".join(to_json(wrapped(tool), indent=4) + "\n\n" for tool in tools), False)]
