"""Reading JSON that a client wrote: a table says what each field is, and everything else is an error.

A reader is a function from a value and its place to what we use; it raises ApiError (400) with the place as `param`.
`null` is the same as leaving a field out. What it takes is told by `schema_of`, as a JSON schema: /openapi.json is made
of these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tunesmith.core.suggest import did_you_mean
from tunesmith.serve.errors import ApiError, invalid, missing, unsupported

__all__ = [
    "Body",
    "Reader",
    "any_object",
    "anything",
    "boolean",
    "choice",
    "described",
    "integer",
    "list_of",
    "number",
    "object_with",
    "read_object",
    "schema_of",
    "text",
    "wrong_type",
]

Reader: TypeAlias = Callable[[Any, str], Any]

_NAMES = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}


def described(**schema: Any) -> Callable[[Reader], Reader]:
    """A decorator: what the reader takes, as a JSON schema. Limits that are None are left out."""

    def mark(read: Reader) -> Reader:
        read.schema = {name: value for name, value in schema.items() if value is not None}  # type: ignore[attr-defined]
        return read

    return mark


def schema_of(read: Reader) -> dict[str, Any]:
    """What a reader takes; {} is anything."""
    found: dict[str, Any] = getattr(read, "schema", {})
    return found


def wrong_type(value: Any, where: str, wanted: str) -> ApiError:
    got = _NAMES.get(type(value), "null")
    return invalid(f"{where} has to be {wanted}, and is {got}", where, "invalid_type")


def anything(value: Any, where: str) -> Any:
    return value


@described(type="object")
def any_object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong_type(value, where, "an object")
    return value


@described(type="boolean")
def boolean(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise wrong_type(value, where, "a boolean")
    return value


def integer(least: int | None = None, most: int | None = None) -> Reader:
    @described(type="integer", minimum=least, maximum=most)
    def read(value: Any, where: str) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(value, where, "an integer")
        return int(_within(value, where, least, most))

    return read


def number(least: float | None = None, most: float | None = None, *, above: float | None = None) -> Reader:
    @described(type="number", minimum=least, maximum=most, exclusiveMinimum=above)
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

    @described(type="string", minLength=least or None, maxLength=most)
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
    @described(enum=list(values))
    def read(value: Any, where: str) -> str:
        if value not in values:
            hint = did_you_mean(value, values) if isinstance(value, str) else None
            raise invalid(f"{where} has to be one of {', '.join(values)}{f'; {hint}' if hint else ''}", where)
        return str(value)

    return read


def list_of(item: Reader, most: int, least: int = 0) -> Reader:
    @described(type="array", items=schema_of(item), minItems=least or None, maxItems=most)
    def read(value: Any, where: str) -> list[Any]:
        if not isinstance(value, list):
            raise wrong_type(value, where, "an array")
        if len(value) < least:
            raise invalid(f"{where} may not be empty", where)
        if len(value) > most:
            raise invalid(f"{where} has {len(value)} entries, and may have {most}", where)
        return [item(one, f"{where}[{index}]") for index, one in enumerate(value)]

    return read


@dataclass(frozen=True, slots=True)
class Body:
    """An object with fields of its own. `ignored` ones change no answer; `refused` ones would, and say why."""

    table: Mapping[str, Reader]
    required: Sequence[str] = ()
    ignored: Collection[str] = ()
    refused: Mapping[str, str] = field(default_factory=dict)

    def read(self, value: Any, where: str = "") -> dict[str, Any]:
        """The fields that it has. Raises ApiError (400) for the first that is wrong."""
        return read_object(value, self.table, where, required=self.required, ignored=self.ignored, refused=self.refused)

    @property
    def schema(self) -> dict[str, Any]:
        known = {name: schema_of(read) for name, read in self.table.items()}
        return {
            "type": "object",
            "properties": {**known, **{name: {} for name in self.ignored}},
            "required": list(self.required),
            "additionalProperties": False,
        }


def object_with(
    table: Mapping[str, Reader],
    required: Sequence[str] = (),
    ignored: Collection[str] = (),
    refused: Mapping[str, str] | None = None,
) -> Reader:
    """An object as a dict of the fields of `table` that it has."""
    body = Body(table, required, ignored, refused or {})

    @described(**body.schema)
    def read(value: Any, where: str) -> dict[str, Any]:
        return body.read(value, where)

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
