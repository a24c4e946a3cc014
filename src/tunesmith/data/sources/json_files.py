"""JSON arrays and JSON lines. The content decides, not the name: `.json` files often hold JSON lines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.types import Origin
from tunesmith.data.rows import AGAIN, Broken, Row, shorten
from tunesmith.data.sources.decode import BOM, decode, read_text

__all__ = ["read_json", "read_jsonl"]

_BLANK = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
_TOO_DEEP = "the JSON is nested too deeply"
_TOO_LONG = "the JSON holds a number of thousands of digits"
_NOT_AN_OBJECT = "the row is not a JSON object"


def read_json(path: Path) -> Iterator[Row]:
    """An array of objects; else JSON lines. Lines are those where the rows begin.

    Raises DataError: E-DATA-003 with file:line:column, E-DATA-007 where the rows lie inside one top-level object.
    """
    text = read_text(path)
    start = _BLANK.match(text).end()  # type: ignore[union-attr]  # matches the empty text too
    if text.startswith("[", start):
        return _array(text, start + 1, path)
    if start == len(text):
        raise DataError(Problem("E-DATA-001", "the file holds only blanks", str(path), fix=AGAIN))
    return _values(text, start, path)


def read_jsonl(path: Path) -> Iterator[Row]:
    """One object per line; blank lines are passed over. A line that is not JSON is a `Broken` row."""
    with path.open("rb") as handle:
        lines = enumerate(handle, 1)
        for _number, first in lines:
            if first.strip():
                break
        else:
            raise DataError(Problem("E-DATA-001", "the file holds only blank lines", str(path), fix=AGAIN))
        if first.removeprefix(BOM).lstrip().startswith(b"["):
            yield from read_json(path)
            return
        row = 0
        for number, data in chain([(_number, first.removeprefix(BOM))], lines):
            line = decode(data, path, number).strip()
            if line:
                yield _line(line, Origin(str(path), row, number))
                row += 1


def _line(line: str, origin: Origin) -> Row:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        reason = "the line is not valid JSON"
        return Row(Broken("E-DATA-003", reason, f"{error.msg} at column {error.colno}: {shorten(line, 40)}"), origin)
    except RecursionError:
        return Row(Broken("E-DATA-003", _TOO_DEEP, shorten(line, 40)), origin)
    except ValueError:  # Python refuses whole numbers of more than 4,300 digits
        return Row(Broken("E-DATA-003", _TOO_LONG, shorten(line, 40)), origin)
    return _row(value, origin)


def _row(value: Any, origin: Origin) -> Row:
    if isinstance(value, dict):
        return Row(value, origin)
    return Row(Broken("E-DATA-008", _NOT_AN_OBJECT, shorten(value)), origin)


def _array(text: str, position: int, path: Path) -> Iterator[Row]:
    """The rows of an array from just behind its `[`. Newlines are counted from row to row, never twice."""
    skip, scan, name = _BLANK.match, _DECODER.raw_decode, str(path)
    line, counted, row = 1, 0, 0
    last = 0 if "\n" in text else 1  # the line of the row before; rows that share a line are told by their number
    position = skip(text, position).end()  # type: ignore[union-attr]
    if text.startswith("]", position):
        raise DataError(Problem("E-DATA-002", "the list of rows is empty", name, fix=AGAIN))
    while True:
        line += text.count("\n", counted, position)
        counted = position
        try:
            value, position = scan(text, position)
        except (ValueError, RecursionError) as error:
            raise DataError(_syntax(text, error, position, path)) from None
        yield _row(value, Origin(name, row, line if line > last else None))
        last = line
        row += 1
        position = skip(text, position).end()  # type: ignore[union-attr]
        if text.startswith(",", position):
            position = skip(text, position + 1).end()  # type: ignore[union-attr]
            continue
        if text.startswith("]", position):
            rest = skip(text, position + 1).end()  # type: ignore[union-attr]
            if rest != len(text):
                after = json.JSONDecodeError("text after the end of the list", text, rest)
                raise DataError(_syntax(text, after, rest, path))
            return
        raise DataError(_syntax(text, json.JSONDecodeError("expected , or ]", text, position), position, path))


def _values(text: str, start: int, path: Path) -> Iterator[Row]:
    """A file that is not an array: JSON lines, one object that holds the rows (an error), or pretty-printed objects."""
    try:
        first, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        first_line = text[start:].split("\n", 1)[0]
        if first_line.rstrip().endswith("}"):  # JSON lines with a broken first line: all lines are reported
            yield from read_jsonl(path)
            return
        raise DataError(_syntax(text, error, start, path)) from None
    if _BLANK.match(text, end).end() == len(text):  # type: ignore[union-attr]
        yield _only(first, path, text.count("\n", 0, start) + 1)
    elif "\n" not in text[start:end]:
        yield from read_jsonl(path)
    else:
        yield from _sequence(text, start, path)


def _only(value: Any, path: Path, line: int) -> Row:
    lists = [key for key, inner in value.items() if _rows(inner)] if isinstance(value, dict) else []
    if not isinstance(value, dict) or (lists and not set(lists) & {"messages", "conversations", "tools"}):
        where = " and ".join(f'"{key}"' for key in lists)
        raise DataError(
            Problem(
                "E-DATA-007",
                "the file holds one JSON value, not a list of rows"
                + (f"; rows were found under {where}" if lists else ""),
                where=f"{path}:{line}",
                fix=f"keep only the list, for example: jq .{lists[0]} {path.name} > rows.json" if lists else None,
            )
        )
    return _row(value, Origin(str(path), 0, line))


def _rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _sequence(text: str, position: int, path: Path) -> Iterator[Row]:
    """Objects one after another, each over several lines."""
    line, counted, row = 1, 0, 0
    while position < len(text):
        line += text.count("\n", counted, position)
        counted = position
        try:
            value, position = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise DataError(_syntax(text, error, position, path)) from None
        yield _row(value, Origin(str(path), row, line))
        row += 1
        position = _BLANK.match(text, position).end()  # type: ignore[union-attr]


def _syntax(text: str, error: ValueError | RecursionError, begin: int, path: Path) -> Problem:
    """The problem for a file that is not JSON; `begin` is where the row or the missing sign should have begun."""
    if not isinstance(error, json.JSONDecodeError):
        line = text.count("\n", 0, begin) + 1
        what = _TOO_DEEP if isinstance(error, RecursionError) else _TOO_LONG
        return Problem("E-DATA-003", what, where=f"{path}:{line}")
    cut = _BLANK.match(text, error.pos).end() == len(text) or error.msg.startswith("Unterminated string")  # type: ignore[union-attr]
    what = f"not valid JSON: {error.msg[0].lower()}{error.msg[1:]}"
    if cut:
        first = text.count("\n", 0, begin) + 1
        what += f"; the file seems to be cut off (the last row begins in line {first}, {len(text):,} characters in all)"
    return Problem(
        "E-DATA-003",
        what,
        where=f"{path}:{error.lineno}:{error.colno}",
        got=shorten(text[max(0, error.pos - 30) : error.pos + 30]) or None,
        fix="write the file again, or get it again" if cut else None,
    )
