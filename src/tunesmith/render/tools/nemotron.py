"""Nemotron 3: Qwen3-Coder's tags with another order of a schema's keys, and a line end behind each call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.render.tools.base import Piece, Tool
from tunesmith.render.tools.json_forms import to_json
from tunesmith.render.tools.markup_forms import NamedParameters
from tunesmith.render.tools.qwen3_5 import QWEN_RULES
from tunesmith.render.tools.qwen3_coder import tagged
from tunesmith.render.tools.schemas import function_of

__all__ = ["Nemotron"]


class Nemotron(NamedParameters):
    name = "nemotron"
    opens = ("<tool_call>", "<function=")
    block = ("<tool_call>\n", "\n</tool_call>")
    function = ("<function=%>\n", "</function>")
    parameter = ("<parameter=%>", "</parameter>\n")
    pad = "\n"
    gap = "\n"
    behind = "\n"

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        head = "# Tools\n\nYou have access to the following functions:\n\n<tools>"
        return [(head, True), ("".join(_declare(function_of(tool)) for tool in tools), False), (QWEN_RULES, True)]


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
        if "enum" in schema:
            text += f"\n<enum>{to_json(schema['enum'])}</enum>"
        text += tagged(schema, ("name", "type", "description", "enum")) + "\n</parameter>"
    text += tagged(parameters, ("type", "properties", "required"))
    if isinstance(parameters, Mapping) and "required" in parameters:
        text += f"\n<required>{to_json(parameters['required'])}</required>"
    text += "\n</parameters>"
    return text + tagged(function, ("type", "name", "description", "parameters")) + "\n</function>"
