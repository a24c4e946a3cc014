"""GigaChat 3: a call is a message of its own; tools are shown as TypeScript."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.render.tools.base import Piece, Tool
from tunesmith.render.tools.json_forms import TaggedJson
from tunesmith.render.tools.schemas import function_of

__all__ = ["GigaChat"]

_NOTED = ("format", "maxItems", "maximum", "minItems", "minimum", "pattern")


class GigaChat(TaggedJson):
    name = "gigachat"
    refuses = ("more than one call in a turn: the model's template writes the first alone",)
    opens = ("function call<|role_sep|>",)
    open, close = "function call<|role_sep|>\n", ""
    gap, gap_always = "<|message_sep|>\n\n", True
    max_calls = 1

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        """The content of the message `function descriptions`."""
        body = "\n".join(_declare(function_of(tool)) for tool in tools)
        return [("namespace functions {\n", True), (body, False), ("\n} // namespace functions\n\n", True)]


def _declare(function: Mapping[str, Any]) -> str:
    lines = [f"// {line}" for line in str(function.get("description") or "").split("\n") if line.strip()]
    parameters, returns = function.get("parameters"), function.get("return_parameters")
    takes = f"_: {_type(parameters, '  ')}" if _has_properties(parameters) else ""
    gives = _type(returns, "  ") if _has_properties(returns) else "any"
    return "\n".join([*lines, f"type {function['name']} = ({takes}) => {gives};\n"])


def _has_properties(schema: object) -> bool:
    return isinstance(schema, Mapping) and bool(schema.get("properties"))


def _type(schema: Any, indent: str) -> str:
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    if kind == "object":
        return _object(schema, indent)
    if kind == "string":
        if schema.get("enum"):
            return " | ".join(f'"{value}"' for value in schema["enum"])
        return "Date" if schema.get("format") in ("date-time", "date") else "string"
    if kind in ("number", "integer"):
        return " | ".join(map(str, schema["enum"])) if schema.get("enum") else "number"
    if kind == "boolean":
        return "boolean"
    if kind == "array":
        return _type(schema["items"], indent) + "[]" if "items" in schema else "Array<any>"
    return "any"


def _object(schema: Mapping[str, Any], indent: str) -> str:
    text = "{\n"
    required = schema.get("required", [])
    for key, value in schema.get("properties", {}).items():
        for line in str(value.get("description", "")).split("\n"):
            text += f"{indent}// {line}\n" if line.strip() else ""
        for noted, limit in value.items():
            if noted in _NOTED:
                text += f"{indent}// {noted}: " + (f'"{limit}"\n' if isinstance(limit, str) else f"{limit}\n")
        text += f"{indent}{key}{'' if key in required else '?'}: {_type(value, indent + '  ')},"
        if "default" in value or "defalut_value" in value:  # the template's own spelling
            default = value.get("default", value.get("defalut_value"))
            text += f' // default: "{default}"' if isinstance(default, str) else f" // default: {default}"
        text += "\n"
    more = schema.get("additionalProperties")
    if more is True or isinstance(more, Mapping):
        text += f"{indent}[key: string]: {_type(more, indent + '  ')}\n"
    return text + indent[:-2] + "}"
