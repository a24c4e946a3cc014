"""Functionary v3.1: `<function=NAME>{...}</function>`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from markupsafe import escape

from tunesmith.core.types import ToolCall
from tunesmith.render.tools.base import Dialect, Found, Piece, Tool
from tunesmith.render.tools.json_forms import read_json, skip, to_json
from tunesmith.render.tools.schemas import Schemas, function_of

__all__ = ["Functionary"]

_NAME = re.compile(r"<function=([^<>\n]+)>")
_RULES = (
    "\nThink very carefully before calling functions.\n"
    "If a you choose to call a function ONLY reply in the following format:\n"
    "<{start_tag}={function_name}>{parameters}{end_tag}\nwhere\n\nstart_tag => `<function`\n"
    "parameters => a JSON dict with the function argument name as key and function argument value as value.\n"
    "end_tag => `</function>`\n\nHere is an example,\n"
    '<function=example_function_name>{"example_name": "example_value"}</function>\n\nReminder:\n'
    "- If looking for real time information use relevant functions before falling back to brave_search\n"
    "- Function calls MUST follow the specified format, start with <function= and end with </function>\n"
    "- Required parameters MUST be specified\n- Only call one function at a time\n"
    "- Put the entire function call reply on one line\n\n"
)


class Functionary(Dialect):
    name = "functionary"
    refuses = ("a function named `python`, which the model's template writes as code",)
    opens = ("<function=",)

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        pieces: list[Piece] = [("You have access to the following functions:\n\n", True)]
        for function in map(function_of, tools):
            # With `&#34;` and the like: so the model's own template writes them.
            name, about = escape(str(function["name"])), escape(str(function.get("description", "")))
            pieces += [("Use the function '", True), (str(name), False), ("' to '", True), (str(about), False)]
            pieces += [("'\n", True), (str(escape(to_json(function))), False), ("\n\n", True)]
        return [*pieces, (_RULES, True)]

    def _write(self, calls: Sequence[ToolCall], earlier: int) -> list[Piece]:
        pieces: list[Piece] = []
        for call in calls:
            if call.name == "python":
                raise self._refusal("a function with this name: the model's template writes it as code", call.name)
            pieces += [("<function=", True), (call.name, False), (">", True)]
            pieces += [(to_json(dict(call.arguments)), False), ("</function>", True)]
        return pieces

    def _read(self, text: str, start: int, schemas: Schemas) -> Found | None:
        name = _NAME.match(text, start)
        found = read_json(text, name.end()) if name else None
        if not name or not found or not isinstance(found[0], Mapping):
            return None
        end = skip(text, found[1])
        if not text.startswith("</function>", end):
            return ([ToolCall(name.group(1), found[0])], end) if end == len(text) else None
        return [ToolCall(name.group(1), found[0])], end + len("</function>")
