"""gpt-oss (harmony): a call is a message to `functions.NAME` on the commentary channel; tools as TypeScript.

What is written follows `<|start|>assistant`; `<|call|>` ends the turn. Text beside a call becomes a message on the
analysis channel before it, as the model's own template does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.core.types import ToolCall
from tunesmith.render.tools.base import Dialect, Found, Piece, Tool
from tunesmith.render.tools.json_forms import read_json, to_json
from tunesmith.render.tools.schemas import Schemas, function_of
from tunesmith.render.tools.signatures import argument_schemas, required_of

__all__ = ["Harmony"]

_ANALYSIS = ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant")
# Models write the receiver before or behind the channel.
_HEAD = re.compile(
    r"(?: to=functions\.(?P<first>[^\s<>]+)\s*<\|channel\|>commentary"
    r"|<\|channel\|>commentary to=functions\.(?P<second>[^\s<>]+))\s*(?:<\|constrain\|>)?\s*\w*<\|message\|>"
)


class Harmony(Dialect):
    name = "harmony"
    refuses = ("more than one call in a turn: the model's template writes the first alone",)
    opens = (" to=functions.", "<|channel|>commentary to=functions.")
    max_calls = 1

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        pieces: list[Piece] = [("# Tools\n\n## functions\n\nnamespace functions {\n\n", True)]
        for tool in tools:
            pieces += [(_declare(function_of(tool)), False), ("\n\n", True)]
        return [*pieces, ("} // namespace functions", True)]

    def _arrange(self, calls: list[Piece], content: str) -> list[Piece]:
        return [(_ANALYSIS[0], True), (content, False), (_ANALYSIS[1], True), *calls] if content else calls

    def _write(self, calls: Sequence[ToolCall], earlier: int) -> list[Piece]:
        return [
            (" to=functions.", True),
            (calls[0].name, False),
            ("<|channel|>commentary json<|message|>", True),
            (to_json(dict(calls[0].arguments)), False),
        ]

    def _strip_gap(self, text: str) -> str:
        text = text.removesuffix("<|start|>assistant")
        if text.startswith(_ANALYSIS[0]):
            return text.removeprefix(_ANALYSIS[0]).removesuffix("<|end|>")
        return text

    def _read(self, text: str, start: int, schemas: Schemas) -> Found | None:
        head = _HEAD.match(text, start)
        found = read_json(text, head.end()) if head else None
        if not head or not found or not isinstance(found[0], Mapping):
            return None
        end = found[1] + len("<|call|>") * text.startswith("<|call|>", found[1])
        return [ToolCall(head["first"] or head["second"], found[0])], end


def _declare(function: Mapping[str, Any]) -> str:
    arguments, required = argument_schemas(function), required_of(function)
    text = f"// {function.get('description', '')}\ntype {function['name']} = "
    if not arguments:
        return text + "() => any;"
    text += "(_: {\n"
    for key, schema in arguments.items():
        if schema.get("description"):
            text += f"// {schema['description']}\n"
        text += f"{key}{'' if key in required else '?'}: {_type(schema)}"
        if "default" in schema:
            default = schema["default"]
            if schema.get("enum"):
                text += f", // default: {default}"
            elif schema.get("oneOf"):
                text += f"// default: {default}"
            else:
                text += f", // default: {to_json(default)}"
        text += ",\n"
    return text + "}) => any;"


def _type(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    nullable = " | null" if schema.get("nullable") else ""
    if kind == "array":
        return _array(schema.get("items")) + nullable
    if isinstance(kind, list | tuple) and kind:
        return " | ".join(map(str, kind))
    if schema.get("oneOf"):
        return _one_of(schema["oneOf"])
    if kind == "string":
        if schema.get("enum"):
            return '"' + '" | "'.join(map(str, schema["enum"])) + '"'
        return "string" + nullable
    if kind in ("number", "integer"):
        return "number"
    if kind == "boolean":
        return "boolean"
    if kind == "object":
        return _object(schema)
    return "any"


def _array(items: Any) -> str:
    if not isinstance(items, Mapping) or not items:
        return "any[]"
    plain = {"string": "string[]", "number": "number[]", "integer": "number[]", "boolean": "boolean[]"}
    named = items.get("type")
    if isinstance(named, str) and named in plain:
        return plain[named]
    inner = _type(items)
    return "any[]" if inner == "object | object" or len(inner) > 50 else inner + "[]"


def _one_of(variants: Sequence[Mapping[str, Any]]) -> str:
    if len(variants) > 1 and any(variant.get("type") == "object" for variant in variants):
        return "any"
    texts = []
    for variant in variants:
        text = _type(variant)
        text += f"// {variant['description']}" if variant.get("description") else ""
        default = " " * 20 + f"// default: {to_json(variant['default'])}" if "default" in variant else ""
        texts.append(text + default)
    return " | \n".join(texts)  # the line end is the template's


def _object(schema: Mapping[str, Any]) -> str:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or not properties:
        return "object"
    required = schema.get("required") or []
    # The line end and the blanks are the template's.
    gap = "\n" + " " * 16
    pairs = (f"{key}{'' if key in required else '?'}: {gap}{_type(value)}" for key, value in properties.items())
    return "{\n" + ", ".join(pairs) + "}"
