"""Seed-OSS: tags around names and values; tools as Python functions with a documentation string."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.render.tools.base import Piece, Tool
from tunesmith.render.tools.markup_forms import NamedParameters, python_text
from tunesmith.render.tools.schemas import function_of
from tunesmith.render.tools.signatures import argument_schemas, required_of

__all__ = ["SeedOss"]

_RULES = (
    "工具调用请遵循如下格式:\n<seed:tool_call>\n<function=example_function_name>\n"
    "<parameter=example_parameter_1>value_1</parameter>\n"
    "<parameter=example_parameter_2>This is the value for the second parameter\nthat can span\nmultiple lines"
    "</parameter>\n</function>\n</seed:tool_call>\n"
)
_TYPES = {"string": "str", "number": "int", "integer": "int", "boolean": "bool", "array": "list"}


class SeedOss(NamedParameters):
    name = "seed_oss"
    opens = ("<seed:tool_call>",)
    block = ("<seed:tool_call>\n", "\n</seed:tool_call>")
    function = ("<function=%>\n", "</function>")
    parameter = ("<parameter=%>", "</parameter>\n")
    gap = "\n\n"

    @staticmethod
    def value(value: Any) -> str:
        return python_text(value)

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        return [("\n\n".join(_declare(function_of(tool)) for tool in tools), False), ("\n" + _RULES, True)]


def _declare(function: Mapping[str, Any]) -> str:
    arguments, required = argument_schemas(function), required_of(function)
    types = {key: _type(schema) for key, schema in arguments.items()}
    text = f"Function:\ndef {function['name']}(" + ",".join(f"{key}: {kind}" for key, kind in types.items()) + "):\n"
    text += f'    """\n    {str(function.get("description", "")).strip()}\n\n'
    if arguments:
        text += "    Args:"
        for key, schema in arguments.items():
            needed = "必填" if key in required else "选填"
            text += f"\n    - {key} ({types[key]}) [{needed}]: {schema.get('description') or ''}"
    returns = function.get("returns")
    results = returns.get("properties") if isinstance(returns, Mapping) else None
    if isinstance(results, Mapping) and results:
        text += "\n    Returns:"
        for key, schema in results.items():
            text += f"\n    - {key} ({_type(schema)}): {schema.get('description') or ''}"
    return text + '\n\n    """'


def _type(schema: Mapping[str, Any]) -> str:
    named = schema.get("type")
    return _TYPES.get(named, "Any") if isinstance(named, str) else "Any"
