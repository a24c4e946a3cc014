"""FireFunction v2: a JSON list behind the word `functools`."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.render.tools.base import Found, Piece, Tool
from tunesmith.render.tools.json_forms import JsonList, to_json
from tunesmith.render.tools.schemas import Schemas, wrapped

__all__ = ["FireFunction"]

_HEAD = """In addition to plain text responses, you can chose to call one or more of the provided functions.

Use the following rule to decide when to call a function:
  * if the response can be generated from your internal knowledge (e.g., as in the case of queries like "What is the \
capital of Poland?"), do so
  * if you need external information that can be obtained by calling one or more of the provided functions, generate a \
function calls

If you decide to call functions:
  * prefix function calls with functools marker (no closing marker required)
  * all function calls should be generated in a single JSON list formatted as functools[{"name": [function name], \
"arguments": [function arguments as JSON]}, ...]
  * follow the provided JSON schema. Do not hallucinate arguments or values. Do to blindly copy values from the \
provided samples
  * respect the argument type formatting. E.g., if the type if number and format is float, write value 7 as 7.0
  * make sure you pick the right functions that match the user intent

Available functions as JSON spec:
"""


class FireFunction(JsonList):
    name = "firefunction"
    refuses = ()
    opens = (" functools[", "functools[")
    before = " functools"

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        """The template is handed the tools as text; JSON is what it asks for. The date behind is the template's."""
        return [(_HEAD, True), (to_json([wrapped(tool) for tool in tools]), False)]

    def _read(self, text: str, start: int, schemas: Schemas) -> Found | None:
        return self._read_list(text, text.index("[", start))
