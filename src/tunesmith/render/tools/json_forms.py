"""Calls written as JSON objects: between tags, one by one, or as a list behind a marker."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tunesmith.core.types import ToolCall
from tunesmith.render.tools.base import Dialect, Found, Piece
from tunesmith.render.tools.schemas import Schemas

__all__ = ["JsonList", "TaggedJson", "as_call", "comma", "quoted", "read_json", "skip", "to_json"]

_DECODER = json.JSONDecoder(strict=False)  # models forget to escape line ends within strings
_BLANKS = " \t\r\n"


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON as chat templates write it."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def quoted(text: str) -> str:
    """Text within the quotes of a JSON string."""
    return to_json(text)[1:-1]


def skip(text: str, position: int, words: str = _BLANKS) -> int:
    """The first position from here that holds none of these characters."""
    while position < len(text) and text[position] in words:
        position += 1
    return position


def comma(text: str, position: int, closing: str) -> int:
    """The position behind a comma, or at `closing`. Raises ValueError where neither is."""
    position = skip(text, position)
    if text.startswith(",", position):
        return skip(text, position + 1)
    if not text.startswith(closing, position):
        raise ValueError("no comma")
    return position


def read_json(text: str, position: int) -> tuple[Any, int] | None:
    """A JSON value behind blanks, and the position behind it. Raises RecursionError on absurd depth."""
    try:
        return _DECODER.raw_decode(text, skip(text, position))
    except ValueError:
        return None


def as_call(
    value: Any, name: str = "name", arguments: Sequence[str] = ("arguments", "parameters"), id_key: str = "id"
) -> ToolCall | None:
    """A call from a decoded object. Arguments may be JSON text, as some models write them."""
    if not isinstance(value, Mapping) or not isinstance(value.get(name), str) or not value[name]:
        return None
    found: Any = next((value[key] for key in arguments if key in value), {})
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except ValueError:
            return None
    if not isinstance(found, Mapping):
        return None
    call_id = value.get(id_key)
    return ToolCall(value[name], found, call_id if isinstance(call_id, str) else None)


class TaggedJson(Dialect):
    """`open {"name": ..., "arguments": ...} close` for each call."""

    open: ClassVar[str]
    close: ClassVar[str]
    join: ClassVar[str] = "\n"
    arguments_key: ClassVar[str] = "arguments"

    def _write(self, calls: Sequence[ToolCall], earlier: int) -> list[Piece]:
        pieces: list[Piece] = []
        for index, call in enumerate(calls):
            pieces += [
                ((self.join if index else "") + self.open + '{"name": "', True),
                (quoted(call.name), False),
                (f'", "{self.arguments_key}": ', True),
                (to_json(dict(call.arguments)), False),
                ("}" + self.close, True),
            ]
        return pieces

    def _read(self, text: str, start: int, schemas: Schemas) -> Found | None:
        opening = next(word for word in self.opens if text.startswith(word, start))
        found = read_json(text, start + len(opening))
        call = as_call(found[0]) if found else None
        if not found or not call:
            return None
        end = skip(text, found[1])
        close = self.close.strip()
        if text.startswith(close, end):
            return [call], end + len(close)
        # The closing word may have ended the generation.
        return ([call], len(text)) if end == len(text) else None


class JsonList(Dialect):
    """`before [{"name": ..., "arguments": ...}, ...] behind`: all calls of a turn in one list."""

    before: ClassVar[str]
    behind: ClassVar[str] = ""
    arguments_key: ClassVar[str] = "arguments"
    writes_ids: ClassVar[bool] = False

    def _write(self, calls: Sequence[ToolCall], earlier: int) -> list[Piece]:
        pieces: list[Piece] = [(self.before + "[", True)]
        for index, call in enumerate(calls):
            pieces += [
                ((", " if index else "") + '{"name": "', True),
                (quoted(call.name), False),
                (f'", "{self.arguments_key}": ', True),
                (to_json(dict(call.arguments)), False),
            ]
            call_id = self.call_id(call, earlier + index) if self.writes_ids else None
            if call_id is not None:
                pieces += [(', "id": "', True), (quoted(call_id), False), ('"', True)]
            pieces.append(("}", True))
        return [*pieces, ("]" + self.behind, True)]

    def _read(self, text: str, start: int, schemas: Schemas) -> Found | None:
        opening = next(word for word in self.opens if text.startswith(word, start))
        return self._read_list(text, start + len(opening))

    def _read_list(self, text: str, position: int) -> Found | None:
        found = read_json(text, position)
        if not found:
            return None
        values = found[0] if isinstance(found[0], list) else [found[0]]
        calls = [as_call(value) for value in values]
        if not all(calls):
            return None
        end = found[1]
        if self.behind and text.startswith(self.behind.strip(), skip(text, end)):
            end = skip(text, end) + len(self.behind.strip())
        return [call for call in calls if call], end
