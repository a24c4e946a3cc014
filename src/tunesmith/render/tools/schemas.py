"""Types of arguments, from the tools' JSON schemas, for dialects whose text does not tell `5` from `"5"`."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Schemas", "decode", "function_of", "same_value", "wrapped"]

# Names of types in JSON schema and in the looser schemas of public tool data.
_KINDS = {
    "string": "string", "str": "string", "char": "string",
    "integer": "integer", "int": "integer", "long": "integer",
    "number": "number", "float": "number", "double": "number",
    "boolean": "boolean", "bool": "boolean",
    "array": "array", "list": "array", "tuple": "array",
    "object": "object", "dict": "object", "hashmap": "object",
    "null": "null", "none": "null",
}  # fmt: skip
_WORDS = {"True": True, "False": False, "None": None}
_DEPTH = 8  # of schemas within schemas


def function_of(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """The function's own schema: name, description, parameters."""
    inner = tool.get("function")
    return inner if isinstance(inner, Mapping) else tool


def wrapped(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tool as {"type": "function", "function": {...}}."""
    return tool if isinstance(tool.get("function"), Mapping) else {"type": "function", "function": tool}


class Schemas:
    """What the tools of a chat say about their arguments."""

    def __init__(self, tools: Sequence[Mapping[str, Any]] = ()) -> None:
        self._parameters: dict[str, Mapping[str, Any]] = {}
        for tool in tools:
            function = function_of(tool)
            parameters = function.get("parameters")
            if isinstance(function.get("name"), str) and isinstance(parameters, Mapping):
                self._parameters[function["name"]] = parameters

    def kinds(self, function: str, argument: str) -> frozenset[str]:
        """JSON types that the argument may have; empty if the schema does not say."""
        root = self._parameters.get(function, {})
        properties = root.get("properties")
        if properties is None and not isinstance(root.get("type"), str):
            properties = root  # some public data leave the object around the arguments out
        schema = properties.get(argument) if isinstance(properties, Mapping) else None
        if schema is None and isinstance(root.get("additionalProperties"), Mapping):
            schema = root["additionalProperties"]
        return frozenset(_kinds(schema, root, _DEPTH)) if isinstance(schema, Mapping) else frozenset()


def _kinds(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> set[str]:
    if depth == 0:
        return set()
    reference = schema.get("$ref")
    if isinstance(reference, str):
        target: Any = root
        for step in reference.removeprefix("#/").split("/"):
            target = target.get(step) if isinstance(target, Mapping) else None
        return _kinds(target, root, depth - 1) if isinstance(target, Mapping) else set()
    named = schema.get("type")
    names = [named] if isinstance(named, str) else named if isinstance(named, Sequence) else []
    first_words = [re.split(r"\W", name.lower())[0] for name in names if isinstance(name, str)]  # `str, optional`
    kinds = {_KINDS[word] for word in first_words if word in _KINDS}
    if not kinds and "enum" in schema and isinstance(schema["enum"], Sequence):
        kinds = {_kind(value) for value in schema["enum"]}
    if not kinds and "const" in schema:
        kinds = {_kind(schema["const"])}
    for word in ("anyOf", "oneOf"):
        variants = schema.get(word)
        if not kinds and isinstance(variants, Sequence):
            each = [_kinds(variant, root, depth - 1) for variant in variants if isinstance(variant, Mapping)]
            kinds = set().union(*each) if all(each) else set()
    if kinds and schema.get("nullable") is True:
        kinds.add("null")
    return kinds


def _kind(value: object) -> str:
    if value is None:
        return "null"
    for python, kind in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (Mapping, "object")):
        if isinstance(value, python):
            return kind
    return "array"


def decode(text: str, kinds: frozenset[str]) -> Any:
    """The value behind text in which strings have no quotes. `kinds`: what the schema says it may be."""
    if kinds == {"string"}:
        return text
    known, value = _literal(text)
    if not known:
        return text
    if "string" in kinds:
        kind = _kind(value)
        fits = kind in kinds or (kind == "integer" and "number" in kinds)
        return value if fits else text
    return value


def _literal(text: str) -> tuple[bool, Any]:
    """JSON, or a Python literal, as models write both. (False, None): neither, so a string."""
    if text in _WORDS:
        return True, _WORDS[text]
    if not text or text[0].isspace() or text[-1].isspace():
        return False, None
    try:
        return True, json.loads(text)
    except ValueError:
        pass
    if text[0] in "{[":
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError):
            return False, None
        if isinstance(value, dict | list):
            return True, value
    return False, None


def same_value(one: Any, other: Any) -> bool:
    """Equal as JSON: 1, 1.0, true and "1" are four things; the order of keys means nothing."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same_value(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same_value, one, other))
    return type(one) is type(other) and bool(one == other)
