"""Hermes 2 Pro and Hermes 3: Qwen's form of a call; tools are described by a Python signature and their schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.render.tools.base import Piece, Tool
from tunesmith.render.tools.json_forms import TaggedJson, to_json
from tunesmith.render.tools.schemas import function_of
from tunesmith.render.tools.signatures import argument_schemas, python_type, text_of

__all__ = ["Hermes"]

_HEAD = (
    "You are a function calling AI model. You are provided with function signatures within <tools></tools> XML tags. "
    "You may call one or more functions to assist with the user query. Don't make assumptions about what values to "
    "plug into functions. Here are the available tools: <tools> "
)
_TAIL = (
    " </tools>Use the following pydantic model json schema for each tool call you will make: "
    '{"properties": {"name": {"title": "Name", "type": "string"}, "arguments": {"title": "Arguments", "type": '
    '"object"}}, "required": ["name", "arguments"], "title": "FunctionCall", "type": "object"}}\n'
    "For each function call return a json object with function name and arguments within <tool_call></tool_call> XML "
    'tags as follows:\n<tool_call>\n{"name": <function-name>, "arguments": <args-dict>}\n</tool_call>'
)


class Hermes(TaggedJson):
    name = "hermes"
    refuses = ("text beside a call: the model's template leaves it out",)
    opens = ("<tool_call>",)
    open, close = "<tool_call>\n", "\n</tool_call>"
    takes_content = False

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        return [(_HEAD, True), ("\n".join(_declare(function_of(tool)) for tool in tools), False), (_TAIL, True)]


def _declare(function: Mapping[str, Any]) -> str:
    # The texts stand within quotes without being escaped: so the model's own template does it.
    types = {key: _type(schema) for key, schema in argument_schemas(function).items()}
    text = f'{{"type": "function", "function": {{"name": "{function["name"]}", "description": "{function["name"]}('
    text += ", ".join(f"{key}: {kind}" for key, kind in types.items()) + ")"
    returns = function.get("return")
    if returns is not None:
        text += f" -> {_type(returns)}"
    text += f" - {text_of(function.get('description'))}\n\n"
    if types:
        text += "    Args:\n"
    for key, schema in argument_schemas(function).items():
        text += f"        {key}({types[key]}): {text_of(schema.get('description')).strip()}"
    if isinstance(returns, Mapping) and "description" in returns:
        text += f"\n    Returns:\n        {returns['description']}"
    return text + '", "parameters": ' + (to_json(function["parameters"]) if types else "{}") + "}"


def _type(schema: object) -> str:
    return python_type(schema, ("list", "dict"), plain_dict=True)
