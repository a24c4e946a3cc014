"""Calls in Python's form, `[name(key="value", other=2)]`, read without running anything.

Names need not be Python's: `get-weather(from="Oslo")` is read as well.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from typing import Any, TypeAlias

from tunesmith.core.types import ToolCall
from tunesmith.render.tools.json_forms import comma, skip

__all__ = ["Reader", "python_literal", "read_calls", "read_literal"]

Reader: TypeAlias = Callable[[str, int], tuple[Any, int]]
"""Reads a value at a position; gives it and the position behind. Raises ValueError."""

_NAME = re.compile(r"\s*([^\s()\[\]{},='\"]+)\s*\(")
_KEY = re.compile(r"\s*([^\s()\[\]{},='\"]+)\s*=\s*")
_NUMBER = re.compile(r"-?\d+(\.\d*)?([eE][+-]?\d+)?")
_WORD = re.compile(r"[A-Za-z]+")
_WORDS = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}
_STRING = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'", re.DOTALL)


def python_literal(value: Any) -> str:
    """A value as Python writes it, strings between double quotes with JSON's escapes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{python_literal(key)}: {python_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(python_literal, value)) + "]"
    return str(value)


def read_calls(text: str, position: int, read_value: Reader | None = None) -> tuple[list[ToolCall], int]:
    """Calls between square brackets, and the position behind. Raises ValueError."""
    read_value = read_value or read_literal
    calls: list[ToolCall] = []
    position = _expect(text, position, "[")
    while not calls or text.startswith(",", skip(text, position)):
        position = skip(text, position) + bool(calls)
        name = _NAME.match(text, position)
        if not name:
            raise ValueError("no call")
        position = name.end()
        arguments: dict[str, Any] = {}
        while key := _KEY.match(text, position):
            arguments[key.group(1)], position = read_value(text, key.end())
            position = skip(text, position)
            position += text.startswith(",", position)
        position = _expect(text, position, ")")
        calls.append(ToolCall(name.group(1), arguments))
    return calls, _expect(text, position, "]")


def read_literal(text: str, position: int) -> tuple[Any, int]:
    """A literal of Python or JSON, and the position behind. Raises ValueError."""
    position = skip(text, position)
    first = text[position : position + 1]
    if first in ('"', "'"):
        return _string(text, position)
    if first in ("[", "("):
        return _sequence(text, position, "]" if first == "[" else ")")
    if first == "{":
        return _mapping(text, position)
    if number := _NUMBER.match(text, position):
        whole = number.group(1) is None and number.group(2) is None
        return (int if whole else float)(number.group()), number.end()
    word = _WORD.match(text, position)
    if word and word.group() in _WORDS:
        return _WORDS[word.group()], word.end()
    raise ValueError("no literal")


def _string(text: str, position: int) -> tuple[str, int]:
    match = _STRING.match(text, position)
    if not match:
        raise ValueError("a string without an end")
    quoted = match.group()
    if quoted[0] == '"':
        try:
            return str(json.loads(quoted, strict=False)), match.end()
        except ValueError:
            pass
    return str(ast.literal_eval(quoted.replace("\r", "\\r").replace("\n", "\\n"))), match.end()


def _sequence(text: str, position: int, closing: str) -> tuple[list[Any], int]:
    values: list[Any] = []
    position = skip(text, position + 1)
    while not text.startswith(closing, position):
        value, position = read_literal(text, position)
        values.append(value)
        position = comma(text, position, closing)
    return values, position + 1


def _mapping(text: str, position: int) -> tuple[dict[str, Any], int]:
    values: dict[str, Any] = {}
    position = skip(text, position + 1)
    while not text.startswith("}", position):
        key, position = read_literal(text, position)
        if not isinstance(key, str):
            raise ValueError("a key that is no string")
        values[key], position = read_literal(text, _expect(text, position, ":"))
        position = comma(text, position, "}")
    return values, position + 1


def _expect(text: str, position: int, word: str) -> int:
    position = skip(text, position)
    if not text.startswith(word, position):
        raise ValueError(f"no {word}")
    return position + len(word)
