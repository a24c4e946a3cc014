"""Tools as signatures of Python functions, as some families are shown them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["argument_schemas", "python_type", "required_of", "text_of"]

_BASIC = {"string": "str", "number": "float", "integer": "int", "boolean": "bool"}


def argument_schemas(function: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The function's arguments and what is said about each."""
    parameters = function.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
    if not isinstance(properties, Mapping):
        return {}
    return {key: value if isinstance(value, Mapping) else {} for key, value in properties.items()}


def required_of(function: Mapping[str, Any]) -> list[str]:
    parameters = function.get("parameters")
    required = parameters.get("required") if isinstance(parameters, Mapping) else None
    return list(required) if isinstance(required, list | tuple) else []


def text_of(value: object) -> str:
    """A description; templates write nothing where it is missing."""
    return "" if value is None else str(value)


def python_type(schema: object, words: tuple[str, str], plain_dict: bool) -> str:
    """The type of a JSON schema. `words`: how lists and dictionaries are called. `plain_dict`: a dictionary whose
    values are not described is written without them.

    The templates that show tools so ask a list for its items in a way that finds no type, and take what has no type
    for an empty union. Models read that, so it is written here as well.
    """
    named = schema.get("type") if isinstance(schema, Mapping) else None
    if named == "array":
        return f"{words[0]}[Union[]]"
    if named == "object" and isinstance(schema, Mapping):
        if plain_dict and "additionalProperties" not in schema:
            return words[1]
        return f"{words[1]}[str, {python_type(schema.get('additionalProperties'), words, plain_dict)}]"
    if isinstance(named, str):
        return _BASIC.get(named, "Any")
    if isinstance(named, list | tuple):
        return "Union[" + ",".join(python_type({"type": one}, words, plain_dict) for one in named) + "]"
    return "Union[]"
