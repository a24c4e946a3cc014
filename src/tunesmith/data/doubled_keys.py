"""Objects of JSON in which a key stands twice: readers keep the last one and drop the others in silence.

A hook of the JSON decoder would see every pair and double the time of parsing. Instead the colons behind quotes are
counted and compared with the keys that came out; only where they differ is the text parsed again with a hook. This
adds a quarter to the time of parsing, and a half where the texts hold colons.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["DoubledKeys", "mark_doubled"]

# A key ends so; inside of a text the quote has a backslash before it. A regex finds them faster than bytes.count does.
_SIGNS: dict[bool, tuple[re.Pattern[Any], re.Pattern[Any]]] = {
    True: (re.compile(rb'":'), re.compile(rb'\\":')),
    False: (re.compile('":'), re.compile(r'\\":')),
}


class DoubledKeys(dict[str, Any]):
    """A row in whose text `key` stands twice in one object."""

    def __init__(self, values: Mapping[str, Any], key: str) -> None:
        super().__init__(values)
        self.key = key


def mark_doubled(values: dict[str, Any], text: bytes | str, begin: int = 0, end: int | None = None) -> dict[str, Any]:
    """The values that were parsed from `text[begin:end]`, as `DoubledKeys` if keys are missing from them."""
    stop = len(text) if end is None else end
    found = _keys_of_messages(values)
    as_bytes = isinstance(text, bytes)
    if text.count(b":" if as_bytes else ":", begin, stop) == found:  # type: ignore[arg-type]  # one sign per key
        return values
    ends, escaped = _SIGNS[as_bytes]
    written = len(ends.findall(text, begin, stop)) - len(escaped.findall(text, begin, stop))
    if written == found or written == _keys(values):
        return values
    piece = text[begin:stop]
    key = _find(piece.decode("utf-8") if isinstance(piece, bytes) else piece)
    return values if key is None else DoubledKeys(values, key)


def _keys_of_messages(values: Mapping[str, Any]) -> int:
    """The keys of a row and of the objects in its lists: all keys of most rows, and quickly counted."""
    count = len(values)
    for inner in values.values():
        if type(inner) is list and inner and type(inner[0]) is dict:
            count += sum(len(one) for one in inner if type(one) is dict)
    return count


def _keys(value: Any) -> int:
    if type(value) is dict:
        return len(value) + sum(map(_keys, value.values()))
    return sum(map(_keys, value)) if type(value) is list else 0


def _find(text: str) -> str | None:
    """The first key that stands twice in one object."""
    found: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            names = [name for name, _value in pairs]
            found.append(next(name for name in names if names.count(name) > 1))
        return values

    json.loads(text, object_pairs_hook=look)
    return found[0] if found else None
