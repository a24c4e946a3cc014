"""Gemma 4: `<|tool_call>call:NAME{key:value}<tool_call|>`, with strings between `<|"|>`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunesmith.core.types import ToolCall
from tunesmith.render.tools.base import Dialect, Found, Piece, Tool
from tunesmith.render.tools.json_forms import comma, skip
from tunesmith.render.tools.schemas import Schemas, function_of

__all__ = ["Gemma4"]

_QUOTE = '<|"|>'
_HEAD = re.compile(r"<\|tool_call>call:([^\s{}<>]+)(?=\{)")
_KEY = re.compile(r"\s*(?:<\|\"\|>)?([^:{}\[\],<>]+?)(?:<\|\"\|>)?:")
_BARE = re.compile(r"[^,{}\[\]<]+")
_WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
_STANDARD = ("description", "type", "properties", "required", "nullable")


class Gemma4(Dialect):
    name = "gemma4"
    set_off = ""
    refuses = (f"a string with `{_QUOTE}`", "names with a colon, a comma, brackets or angle brackets")
    opens = ("<|tool_call>call:",)
    all_names = False
    """Arguments named like a schema's own keys are declared; else left out, as the model's first template does it."""

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        pieces: list[Piece] = []
        for tool in tools:
            pieces += [("<|tool>", True), *_declare(function_of(tool), self.all_names), ("<tool|>", True)]
        return pieces

    def _arrange(self, calls: list[Piece], content: str) -> list[Piece]:
        # The model's own template writes text behind the calls and their results.
        return [*calls, (content, False)]

    def _write(self, calls: Sequence[ToolCall], earlier: int) -> list[Piece]:
        pieces: list[Piece] = []
        for call in calls:
            pieces += [("<|tool_call>call:", True), (call.name, False)]
            pieces += [*_mapping(call.arguments, quote_keys=False), ("<tool_call|>", True)]
        return pieces

    def _read(self, text: str, start: int, schemas: Schemas) -> Found | None:
        head = _HEAD.match(text, start)
        if not head:
            return None
        arguments, end = _read_value(text, head.end())
        end = skip(text, end)
        closing = "<tool_call|>"
        if not text.startswith(closing, end):
            return ([ToolCall(head.group(1), arguments)], end) if end == len(text) else None
        return [ToolCall(head.group(1), arguments)], end + len(closing)


def _sorted(mapping: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(mapping.items(), key=lambda pair: pair[0].lower())


def _joined(groups: Iterator[list[Piece]] | Sequence[list[Piece]]) -> list[Piece]:
    pieces: list[Piece] = []
    for index, group in enumerate(groups):
        pieces += [*([(",", True)] if index else []), *group]
    return pieces


def _string(text: object) -> list[Piece]:
    return [(_QUOTE, True), (str(text), False), (_QUOTE, True)]


def _value(value: Any, quote_keys: bool) -> list[Piece]:
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, bool):
        return [("true" if value else "false", True)]
    if isinstance(value, Mapping):
        return _mapping(value, quote_keys)
    if isinstance(value, list | tuple):
        return [("[", True), *_joined([_value(item, quote_keys) for item in value]), ("]", True)]
    return [(str(value), True)]


def _mapping(mapping: Mapping[str, Any], quote_keys: bool) -> list[Piece]:
    pairs = [
        [*(_string(key) if quote_keys else [(key, False)]), (":", True), *_value(value, quote_keys)]
        for key, value in _sorted(mapping)
    ]
    return [("{", True), *_joined(pairs), ("}", True)]


def _read_value(text: str, position: int) -> tuple[Any, int]:
    """A value and the position behind it. Raises ValueError."""
    position = skip(text, position)
    if text.startswith(_QUOTE, position):
        end = text.index(_QUOTE, position + len(_QUOTE))
        return text[position + len(_QUOTE) : end], end + len(_QUOTE)
    if text.startswith("{", position):
        values: dict[str, Any] = {}
        position = skip(text, position + 1)
        while not text.startswith("}", position):
            key = _KEY.match(text, position)
            if not key:
                raise ValueError("no key")
            values[key.group(1)], position = _read_value(text, key.end())
            position = comma(text, position, "}")
        return values, position + 1
    if text.startswith("[", position):
        items: list[Any] = []
        position = skip(text, position + 1)
        while not text.startswith("]", position):
            item, position = _read_value(text, position)
            items.append(item)
            position = comma(text, position, "]")
        return items, position + 1
    bare = _BARE.match(text, position)
    if not bare:
        raise ValueError("no value")
    word = bare.group().strip()
    if word in _WORDS:
        return _WORDS[word], bare.end()
    return (float(word) if re.search(r"[.eEn]", word) else int(word)), bare.end()


def _list(values: Sequence[object]) -> list[Piece]:
    return [("[", True), *_joined([_string(value) for value in values]), ("]", True)]


def _upper(value: object) -> str:
    return "" if value is None else str(value).upper()


def _declare(function: Mapping[str, Any], all_names: bool) -> list[Piece]:
    pieces: list[Piece] = [("declaration:", True), (str(function["name"]), False), ("{description:", True)]
    pieces += _string(function.get("description", ""))
    if parameters := function.get("parameters"):
        pieces.append((",parameters:{", True))
        if parameters.get("properties"):
            pieces += [("properties:{", True), *_properties(parameters["properties"], all_names), ("},", True)]
        if parameters.get("required"):
            pieces += [("required:", True), *_list(parameters["required"]), (",", True)]
        if parameters.get("type"):
            pieces += [("type:", True), *_string(_upper(parameters["type"])), ("}", True)]
    response = function.get("response")
    if isinstance(response, Mapping):
        pieces.append((",response:{", True))
        if response.get("description"):
            pieces += [("description:", True), *_string(response["description"]), (",", True)]
        if _upper(response.get("type")) == "OBJECT":
            pieces += [("type:", True), *_string("OBJECT"), ("}", True)]
    return [*pieces, ("}", True)]


def _properties(properties: Mapping[str, Any], all_names: bool, named: bool = True) -> list[Piece]:
    """`named`: these are arguments, not the keys of a schema that names none."""
    pairs = [
        [(key, False), (":{", True), *_joined(_parts(_schema(value), all_names)), ("}", True)]
        for key, value in _sorted(properties)
        if key not in _STANDARD or (all_names and named)
    ]
    return _joined([[(str(text), trusted) for text, trusted in pair] for pair in pairs])


def _schema(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _parts(schema: Mapping[str, Any], all_names: bool) -> list[list[Piece]]:
    kind = _upper(schema.get("type"))
    parts: list[list[Piece]] = []
    if schema.get("description"):
        parts.append([("description:", True), *_string(schema["description"])])
    if kind == "STRING" and schema.get("enum"):
        parts.append([("enum:", True), *_value(schema["enum"], quote_keys=True)])
    if kind == "ARRAY" and isinstance(schema.get("items"), Mapping) and schema["items"]:
        parts.append([("items:{", True), *_joined(_items(schema["items"], all_names)), ("}", True)])
    if schema.get("nullable"):
        parts.append([("nullable:true", True)])
    if kind == "OBJECT":
        inner = schema.get("properties")
        named = isinstance(inner, Mapping)
        written = _properties(inner if isinstance(inner, Mapping) else schema, all_names, named)
        parts.append([("properties:{", True), *written, ("}", True)])
        if schema.get("required"):
            parts.append([("required:", True), *_list(schema["required"])])
    parts.append([("type:", True), *_string(kind)])
    return parts


def _items(schema: Mapping[str, Any], all_names: bool) -> Iterator[list[Piece]]:
    for key, value in _sorted(schema):
        if value is None:
            continue
        if key == "properties":
            yield [("properties:{", True), *_properties(_schema(value), all_names), ("}", True)]
        elif key == "required":
            yield [("required:", True), *_list(value)]
        elif key == "type":
            named = value.upper() if isinstance(value, str) else [str(one).upper() for one in value]
            yield [("type:", True), *_value(named, quote_keys=True)]
        else:
            yield [(key, False), (":", True), *_value(value, quote_keys=True)]
