"""Reading JSON that a client wrote: a table says what each field is, and everything else is an error.

A reader is a function from a value and its place to what we use; it raises ApiError (400) with the place as `param`.
`null` is the same as leaving a field out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

from tunesmith.core.suggest import did_you_mean
from tunesmith.serve.errors import ApiError, invalid, missing, unsupported

__all__ = [
    "Reader",
    "any_object",
    "anything",
    "boolean",
    "choice",
    "integer",
    "list_of",
    "number",
    "object_with",
    "read_object",
    "text",
    "wrong_type",
]

Reader: TypeAlias = Callable[[Any, str], Any]

_NAMES = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}


def wrong_type(value: Any, where: str, wanted: str) -> ApiError:
    got = _NAMES.get(type(value), "null")
    return invalid(f"{where} has to be {wanted}, and is {got}", where, "invalid_type")


def anything(value: Any, where: str) -> Any:
    return value


def any_object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong_type(value, where, "an object")
    return value


def boolean(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise wrong_type(value, where, "a boolean")
    return value


def integer(least: int | None = None, most: int | None = None) -> Reader:
    def read(value: Any, where: str) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(value, where, "an integer")
        return int(_within(value, where, least, most))

    return read


def number(least: float | None = None, most: float | None = None, *, above: float | None = None) -> Reader:
    def read(value: Any, where: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong_type(value, where, "a number")
        if above is not None and value <= above:
            raise invalid(f"{where} has to be above {above:g}, and is {value}", where)
        return float(_within(value, where, least, most))

    return read


def _within(value: float, where: str, least: float | None, most: float | None) -> float:
    if isinstance(value, float) and not math.isfinite(value):
        raise invalid(f"{where} is not a finite number", where)
    if least is not None and value < least:
        raise invalid(f"{where} has to be at least {least:g}, and is {value}", where)
    if most is not None and value > most:
        raise invalid(f"{where} may be at most {most:g}, and is {value}", where)
    return value


def text(least: int = 0, most: int | None = None) -> Reader:
    """A string of so many characters."""

    def read(value: Any, where: str) -> str:
        if not isinstance(value, str):
            raise wrong_type(value, where, "a string")
        if len(value) < least:
            raise invalid(f"{where} may not be empty", where)
        if most is not None and len(value) > most:
            raise invalid(f"{where} has {len(value)} characters, and may have {most}", where)
        return value

    return read


def choice(*values: str) -> Reader:
    def read(value: Any, where: str) -> str:
        if value not in values:
            hint = did_you_mean(value, values) if isinstance(value, str) else None
            raise invalid(f"{where} has to be one of {', '.join(values)}{f'; {hint}' if hint else ''}", where)
        return str(value)

    return read


def list_of(item: Reader, most: int, least: int = 0) -> Reader:
    def read(value: Any, where: str) -> list[Any]:
        if not isinstance(value, list):
            raise wrong_type(value, where, "an array")
        if len(value) < least:
            raise invalid(f"{where} may not be empty", where)
        if len(value) > most:
            raise invalid(f"{where} has {len(value)} entries, and may have {most}", where)
        return [item(one, f"{where}[{index}]") for index, one in enumerate(value)]

    return read


def object_with(
    table: Mapping[str, Reader],
    required: Sequence[str] = (),
    ignored: Collection[str] = (),
    refused: Mapping[str, str] | None = None,
) -> Reader:
    """An object as a dict of the fields of `table` that it has."""

    def read(value: Any, where: str) -> dict[str, Any]:
        return read_object(value, table, where, required=required, ignored=ignored, refused=refused)

    return read


def read_object(
    value: Any,
    table: Mapping[str, Reader],
    where: str = "",
    *,
    required: Sequence[str] = (),
    ignored: Collection[str] = (),
    refused: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The fields of an object that `table` knows. `ignored` ones change no answer; `refused` ones would, and say why.

    Raises ApiError (400) for any other field that is not null.
    """
    if not isinstance(value, dict):
        raise wrong_type(value, where or "the body", "an object")
    found: dict[str, Any] = {}
    for name, one in value.items():
        place = f"{where}.{name}" if where else name
        if one is None or name in ignored:
            continue
        if refused and name in refused:
            raise unsupported(f"{place} is not supported: {refused[name]}", place)
        if name not in table:
            hint = did_you_mean(name, list(table))
            shown = place if len(place) <= 100 else f"{place[:100]}..."
            raise unsupported(f"{shown} is no field that this server knows{f'; {hint}' if hint else ''}", shown)
        found[name] = table[name](one, place)
    for name in required:
        if name not in found:
            raise missing(f"{where}.{name}" if where else name)
    return found
