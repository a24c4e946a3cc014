"""Qwen3-Coder: tags around names and values, for the tools as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.render.tools.base import Piece, Tool
from tunesmith.render.tools.json_forms import to_json
from tunesmith.render.tools.markup_forms import NamedParameters
from tunesmith.render.tools.schemas import function_of

__all__ = ["Qwen3Coder", "tagged"]

_RULES = (
    "\n</tools>\n\nIf you choose to call a tool ONLY reply in the following format with NO suffix:\n\n"
    "<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>\nvalue_1\n</parameter>\n"
    "<parameter=example_parameter_2>\nvalue_2\n</parameter>\n</function>\n</tool_call>\n\n<IMPORTANT>\nReminder:\n"
    "- Function calls MUST follow the specified format: the tool calling block MUST begin with an opening "
    "<tool_call> tag and end with a closing </tool_call> tag.\n"
    "- Required parameters MUST be specified\n"
    "- You may provide optional reasoning for your function call in natural language BEFORE the function call, but "
    "NOT after\n"
    "- If there is no function call available, answer the question like normal with your current knowledge and do "
    "not tell the user about function calls\n</IMPORTANT>"
)


class Qwen3Coder(NamedParameters):
    name = "qwen3_coder"
    opens = ("<tool_call>", "<function=")
    block = ("<tool_call>\n", "\n</tool_call>")
    function = ("<function=%>\n", "</function>")
    parameter = ("<parameter=%>", "</parameter>\n")
    pad = "\n"
    gap = "\n\n"

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        head = "# Tools\n\nYou have access to the following tools:\n\n<tools>"
        return [(head, True), ("".join(_declare(function_of(tool)) for tool in tools), False), (_RULES, True)]


def tagged(schema: object, handled: Sequence[str]) -> str:
    """`<key>value</key>` lines for the keys of a schema that have no form of their own."""
    if not isinstance(schema, Mapping):
        return ""
    return "".join(f"\n<{key}>{_plain(value)}</{key}>" for key, value in schema.items() if key not in handled)


def _plain(value: Any) -> str:
    return to_json(value) if isinstance(value, Mapping | list | tuple) else str(value)


def _declare(function: Mapping[str, Any]) -> str:
    text = f"\n<function>\n<name>{function['name']}</name>"
    if "description" in function:
        text += f"\n<description>{str(function['description']).strip()}</description>"
    text += "\n<parameters>"
    parameters = function.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
    for key, schema in properties.items() if isinstance(properties, Mapping) else ():
        text += f"\n<parameter>\n<name>{key}</name>"
        if "type" in schema:
            text += f"\n<type>{schema['type']}</type>"
        if "description" in schema:
            text += f"\n<description>{str(schema['description']).strip()}</description>"
        text += tagged(schema, ("name", "type", "description")) + "\n</parameter>"
    text += tagged(parameters, ("type", "properties")) + "\n</parameters>"
    return text + tagged(function, ("type", "name", "description", "parameters")) + "\n</function>"
