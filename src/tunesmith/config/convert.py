"""From what stands in a file or on the command line to the value that a key has. Numbers may be written as text."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from tunesmith.config.keys import Key
from tunesmith.core.suggest import did_you_mean

__all__ = ["Mismatch", "convert", "expected"]

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_TYPES = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "names": "names separated by commas, or a list",
    "numbers": "numbers separated by commas, or a list",
    "list": "a list",
    "dict": "a mapping",
    "object": "a mapping",
}
_NONE = object()
_MOST_LISTED = 8
"""Choices that an error lists besides the nearest ones."""
_SCIENTIFIC = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


class Mismatch(Exception):
    """A value that a key cannot have: the error's code, and what would be right."""

    def __init__(self, code: str, wanted: str, fix: str | None = None) -> None:
        super().__init__(wanted)
        self.code = code
        self.wanted = wanted
        self.fix = fix


def expected(key: Key) -> str:
    """What a key takes, in plain words."""
    if key.choices:
        words = [f"one of {', '.join(key.choices)}"] + (["true or false"] if "bool" in key.types else [])
    else:
        words = [_TYPES[name] for name in _ORDER if name in key.types]
    return " or ".join(words + (["null"] if key.nullable and key.default is not None else []))


_ORDER = ("bool", "int", "float", "names", "numbers", "str", "list", "dict", "object")


def convert(key: Key, value: Any, text: Any = None) -> Any:
    """The value of `key`, or Mismatch. `text` is how a scalar (or each scalar of a list) was written, if known:
    `run_name: 2024_01` means the text and not the number 202401, `save_strategy: no` not false."""
    if value is None or (isinstance(value, str) and not value.strip()):
        if value is not None and (key.mark.empty or value == key.default):
            return value
        if key.nullable:
            return None
        if {"names", "numbers"} & set(key.types) and key.default == ():
            return ()
        if value is None or "str" not in key.types:
            raise Mismatch("E-CONFIG-002", expected(key), "write a value, or leave the key out")
    found = _convert(key, value, text)
    if found is _NONE:
        raise Mismatch("E-CONFIG-002", expected(key))
    _check_choice(key, found)
    _check_limits(key, found)
    return found


def _convert(key: Key, value: Any, text: Any) -> Any:
    if isinstance(value, dict):
        if "items" in key.types:
            return (_numbers_inside(value),)
        return _numbers_inside(value) if {"dict", "object"} & set(key.types) else _NONE
    if isinstance(value, (list, tuple)):
        return _from_list(key, value, text)
    if isinstance(value, bool):
        if "bool" in key.types:
            return value
        if not value and "no" in key.choices:
            return "no"
        return _from_text(key, text) if isinstance(text, str) and "str" in key.types else _NONE
    if isinstance(value, (int, float)):
        if "bool" in key.types and value in (0, 1) and not isinstance(value, float):
            return bool(value)
        if (number := _number(key, value)) is not _NONE:
            return number
        return _from_text(key, text if isinstance(text, str) else str(value))
    return _from_text(key, str(value))  # text, dates of YAML, paths


def _from_text(key: Key, text: str) -> Any:
    if "bool" in key.types and text.strip().lower() in _WORDS:
        return _WORDS[text.strip().lower()]
    if {"int", "float"} & set(key.types):
        return _number(key, _parse(text))
    if {"names", "numbers"} & set(key.types):
        return _from_list(key, [part for part in (piece.strip() for piece in text.split(",")) if part], None)
    if "dict" in key.types and text.lstrip().startswith("{"):
        try:
            return _numbers_inside(json.loads(text))
        except ValueError:
            raise Mismatch("E-CONFIG-002", "a mapping", "the JSON in it is not complete or not valid") from None
    if "list" in key.types and (key.choices or "str" not in key.types):
        parts = [piece.strip() for piece in text.split(",")]
        return parts if len(parts) > 1 or "str" not in key.types else text
    return text if "str" in key.types else _NONE


def _from_list(key: Key, values: Any, texts: Any) -> Any:
    if "items" in key.types and any(isinstance(value, dict) for value in values):
        return _items(key, values, texts)
    if any(isinstance(value, (dict, list, tuple)) or value is None for value in values):
        return _NONE
    if "numbers" in key.types:
        numbers = [_parse(value) if isinstance(value, str) else value for value in values]
        good = all(isinstance(n, (int, float)) and not isinstance(n, bool) and math.isfinite(n) for n in numbers)
        return tuple(numbers) if good else _NONE
    written = [
        text if isinstance(text, str) else str(value) for value, text in zip(values, texts or values, strict=True)
    ]
    if "names" in key.types:
        return tuple(written)
    return written if "list" in key.types else _NONE


def _items(key: Key, values: Any, texts: Any) -> Any:
    """Names with mappings among them."""
    found: list[Any] = []
    for value, text in zip(values, texts or values, strict=True):
        items = (_numbers_inside(value),) if isinstance(value, dict) else _from_list(key, [value], [text])
        if items is _NONE:
            return _NONE
        found += items
    return tuple(found)


def _numbers_inside(value: Any) -> Any:
    """A mapping with `1e-6` as a number: YAML 1.1, unlike everybody else, reads it as text."""
    if isinstance(value, dict):
        return {str(key): _numbers_inside(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers_inside(item) for item in value]
    return float(value) if isinstance(value, str) and _SCIENTIFIC.fullmatch(value) else value


def _parse(text: str) -> Any:
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return _NONE


def _number(key: Key, value: Any) -> Any:
    if value is _NONE or not math.isfinite(value):
        return _NONE
    if "float" in key.types:
        return value
    return int(value) if "int" in key.types and value == int(value) else _NONE


def _check_choice(key: Key, value: Any) -> None:
    if not key.choices or isinstance(value, bool):
        return
    for item in [value] if isinstance(value, str) else value:
        if item not in key.choices:
            near = did_you_mean(item, key.choices)
            many = near is not None and len(key.choices) > _MOST_LISTED
            wanted = f"one of {len(key.choices)} names" if many else expected(key)
            raise Mismatch("E-CONFIG-003", wanted, near)


def _check_limits(key: Key, value: Any) -> None:
    mark = key.mark
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return
    limits: tuple[tuple[float | None, str, bool], ...] = (
        (mark.above, "above", mark.above is None or value > mark.above),
        (mark.least, "at least", mark.least is None or value >= mark.least),
        (mark.below, "below", mark.below is None or value < mark.below),
        (mark.most, "at most", mark.most is None or value <= mark.most),
    )
    if all(holds for _, _, holds in limits):
        return
    stated = " and ".join(f"{words} {limit:g}" for limit, words, _ in limits if limit is not None)
    raise Mismatch("E-CONFIG-004", f"{_TYPES['int' if 'int' in key.types else 'float']}, {stated}")
