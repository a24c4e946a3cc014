"""What Qwen3-Coder, Qwen 3.5 and Nemotron 3 share: calls as tags inside `<tool_call>`, tools declared as tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tunesmith.render.tools.json_forms import to_json
from tunesmith.render.tools.markup_forms import NamedParameters

__all__ = ["REMINDERS", "QwenTags", "declare"]

# How the instructions of both Qwen forms end.
REMINDERS = (
    "- Required parameters MUST be specified\n"
    "- You may provide optional reasoning for your function call in natural language BEFORE the function call, but "
    "NOT after\n"
    "- If there is no function call available, answer the question like normal with your current knowledge and do "
    "not tell the user about function calls\n</IMPORTANT>"
)


class QwenTags(NamedParameters):
    """`<tool_call>\\n<function=NAME>\\n<parameter=KEY>\\nvalue\\n</parameter>\\n</function>\\n</tool_call>`."""

    opens = ("<tool_call>", "<function=")
    block: ClassVar = ("<tool_call>\n", "\n</tool_call>")
    function: ClassVar = ("<function=%>\n", "</function>")
    parameter: ClassVar = ("<parameter=%>", "</parameter>\n")
    pad = "\n"
    gap = "\n\n"


def declare(function: Mapping[str, Any], *, enum_first: bool = False, required_last: bool = False) -> str:
    """A tool as tags. `enum_first`: a parameter's enum stands before its keys without a form of their own;
    `required_last`: the names of required parameters stand behind all others."""
    text = f"\n<function>\n<name>{function['name']}</name>"
    if "description" in function:
        text += f"\n<description>{str(function['description']).strip()}</description>"
    text += "\n<parameters>"
    parameters = function.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
    for key, schema in properties.items() if isinstance(properties, Mapping) else ():
        text += _parameter(key, schema, enum_first)
    text += _tagged(parameters, ("type", "properties", *(("required",) if required_last else ())))
    if required_last and isinstance(parameters, Mapping) and "required" in parameters:
        text += f"\n<required>{to_json(parameters['required'])}</required>"
    text += "\n</parameters>"
    return text + _tagged(function, ("type", "name", "description", "parameters")) + "\n</function>"


def _parameter(key: str, schema: Mapping[str, Any], enum_first: bool) -> str:
    text = f"\n<parameter>\n<name>{key}</name>"
    if "type" in schema:
        text += f"\n<type>{schema['type']}</type>"
    if "description" in schema:
        text += f"\n<description>{str(schema['description']).strip()}</description>"
    if enum_first and "enum" in schema:
        text += f"\n<enum>{to_json(schema['enum'])}</enum>"
    handled = ("name", "type", "description", *(("enum",) if enum_first else ()))
    return text + _tagged(schema, handled) + "\n</parameter>"


def _tagged(schema: object, handled: Sequence[str]) -> str:
    """`<key>value</key>` lines for the keys of a schema that have no form of their own."""
    if not isinstance(schema, Mapping):
        return ""
    return "".join(f"\n<{key}>{_plain(value)}</{key}>" for key, value in schema.items() if key not in handled)


def _plain(value: Any) -> str:
    return to_json(value) if isinstance(value, Mapping | list | tuple) else str(value)
