"""Command R+: `Action:` and a JSON code block; tools as signatures of Python functions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.core.types import ToolCall
from tunesmith.render.tools.base import Dialect, Found, Piece, Tool
from tunesmith.render.tools.json_forms import as_call, quoted, read_json, to_json
from tunesmith.render.tools.schemas import Schemas, function_of
from tunesmith.render.tools.signatures import argument_schemas, python_type, required_of

__all__ = ["CommandRPlus"]

_BEGIN, _END = "Action:\n```json\n[\n", "\n]```\n"
_OPEN = re.compile(r"Action:\s*```json\s*(?=[\[{])")
_CLOSE = re.compile(r"\s*```\n?")


class CommandRPlus(Dialect):
    name = "command_r_plus"
    refuses = ()
    opens = ("Action:",)
    gap, gap_always = "\n", True

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        head = "## Available Tools\nHere is a list of tools that you have available to you:\n\n"
        return [(head, True), ("\n\n".join(_declare(function_of(tool)) for tool in tools), False)]

    def _write(self, calls: Sequence[ToolCall], earlier: int) -> list[Piece]:
        pieces: list[Piece] = [(_BEGIN, True)]
        for index, call in enumerate(calls):
            arguments = to_json(dict(call.arguments), indent=4).replace("\n", "\n" + " " * 8)
            pieces += [((",\n" if index else "") + '    {\n        "tool_name": "', True), (quoted(call.name), False)]
            pieces += [('",\n        "parameters": ', True), (arguments, False), ("\n    }", True)]
        return [*pieces, (_END, True)]

    def _read(self, text: str, start: int, schemas: Schemas) -> Found | None:
        opening = _OPEN.match(text, start)
        found = read_json(text, opening.end()) if opening else None
        if not found:
            return None
        values = found[0] if isinstance(found[0], list) else [found[0]]
        calls = [call for value in values if (call := as_call(value, "tool_name"))]
        if len(calls) != len(values):
            return None
        close = _CLOSE.match(text, found[1])
        return calls, close.end() if close else found[1]


def _declare(function: Mapping[str, Any]) -> str:
    required = required_of(function)
    types = {
        key: kind if key in required else f"Optional[{kind}]"
        for key, schema in argument_schemas(function).items()
        for kind in [python_type(schema, ("List", "Dict"), plain_dict=False)]
    }
    signature = (f"{key}: {kind}" + ("" if key in required else " = None") for key, kind in types.items())
    text = f"```python\ndef {function['name']}({', '.join(signature)}) -> List[Dict]:\n"
    text += f'    """{function.get("description", "")}'
    if types:
        about = (
            f"{key} ({types[key]}): {schema.get('description', '')}"
            for key, schema in argument_schemas(function).items()
        )
        text += "\n\n    Args:\n        " + "\n        ".join(about)
    return text + '\n    """\n    pass\n```'
