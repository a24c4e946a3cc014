"""JSON arrays and JSON lines. The content decides, not the name: `.json` files often hold JSON lines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.suggest import did_you_mean
from tunesmith.core.types import Origin
from tunesmith.data.rows import AGAIN, Row, Unparsed, not_an_object
from tunesmith.data.sources.base import Blob
from tunesmith.data.sources.decode import lines
from tunesmith.data.sources.window import Fault, Window

__all__ = ["read_json", "read_jsonl"]


def read_json(blob: Blob, field: str | None = None) -> Iterator[Row]:
    """An array of objects; else JSON lines. Lines are those where the rows begin. With `field` the array is the value
    of this key of one top-level object.

    Rows of arrays come parsed: to find the end of a row costs as much as to read it.

    Raises DataError: E-DATA-003 with file:line:column, E-DATA-007 where the rows lie inside one top-level object.
    """
    with blob.open() as stream:
        window = Window(stream, blob.name)
        sign = window.sign()
        if not sign:
            raise DataError(Problem("E-DATA-001", "the file holds only blanks", blob.name, fix=AGAIN))
        if field is not None:
            yield from _under(window, field)
        elif sign == "[":
            yield from _array(window)
            _end(window)
        else:
            yield from _not_an_array(window, blob)


def read_jsonl(blob: Blob) -> Iterator[Row]:
    """One object per line; blank lines are passed over. A line that is not JSON is a `Broken` row when it is parsed."""
    for _number, line in lines(blob):
        if line.strip():
            break
    else:
        raise DataError(Problem("E-DATA-001", "the file holds only blank lines", blob.name, fix=AGAIN))
    return read_json(blob) if line.lstrip().startswith(b"[") else _rows_of_lines(blob)


def _rows_of_lines(blob: Blob) -> Iterator[Row]:
    row, name = 0, blob.name
    for number, line in lines(blob):
        if line := line.strip():
            yield Row(Unparsed(line), Origin(name, row, number))
            row += 1


def _row(value: Any, origin: Origin) -> Row:
    return Row(value if isinstance(value, dict) else not_an_object(value), origin)


def _array(window: Window) -> Iterator[Row]:
    """The rows of the array that `window` stands before."""
    name, row = window.name, 0
    # The line of the row before: rows that share a line are told by their number.
    last = 0 if "\n" in window.text else 1
    for line, value in _elements(window):
        yield _row(value, Origin(name, row, line if line > last else None))
        last = line
        row += 1
    if row == 0:
        raise DataError(Problem("E-DATA-002", "the list of rows is empty", name, fix=AGAIN))


def _elements(window: Window) -> Iterator[tuple[int, Any]]:
    """(line, value) of what the array holds that `window` stands before; moves past its end."""
    window.at += 1
    sign = window.sign()
    while sign != "]":
        line = window.line()
        yield line, _value(window)
        sign = window.sign()
        if sign == ",":
            window.at += 1
            window.skip()
        elif sign != "]":
            raise _fault(window, "expected , or ]")
    window.at += 1


def _end(window: Window) -> None:
    if window.sign():
        raise _fault(window, "text after the end of the list")


def _sequence(window: Window, first: Any, line: int) -> Iterator[Row]:
    """Objects one after another, each over several lines; `first` is read already."""
    yield _row(first, Origin(window.name, 0, line))
    row = 1
    while window.sign():
        line = window.line()
        yield _row(_value(window), Origin(window.name, row, line))
        row += 1


def _not_an_array(window: Window, blob: Blob) -> Iterator[Row]:
    """JSON lines, one object that holds the rows (an error), or pretty-printed objects."""
    line, begin = window.line(), window.text[window.at :].split("\n", 1)[0].rstrip()
    try:
        first = window.value()
    except Fault as fault:
        if begin.endswith("}"):  # JSON lines with a broken first line: all lines are reported
            return _rows_of_lines(blob)
        raise DataError(window.problem(fault, window.at)) from None
    except DataError:  # a row without end; or is it an object that holds all rows?
        if key := _first_list(blob):
            raise DataError(_rows_inside([key], blob.name, line)) from None
        raise
    same_line = window.line() == line
    if not window.sign():
        return iter([_only(first, window.name, line)])
    return _rows_of_lines(blob) if same_line else _sequence(window, first, line)


def _only(value: Any, name: str, line: int) -> Row:
    lists = [key for key, inner in value.items() if _rows(inner)] if isinstance(value, dict) else []
    if not isinstance(value, dict) or (lists and not set(lists) & {"messages", "conversations", "tools"}):
        raise DataError(_rows_inside(lists, name, line))
    return _row(value, Origin(name, 0, line))


def _rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _rows_inside(lists: Sequence[str], name: str, line: int) -> Problem:
    found = " and ".join(f'"{key}"' for key in lists)
    what = "the file holds one JSON value, not a list of rows" + (f"; rows were found under {found}" if lists else "")
    fix = f'dataset: [{{path: {name}, field: {lists[0]}}}]; or "field": "{lists[0]}" in its entry' if lists else None
    return Problem("E-DATA-007", what, where=f"{name}:{line}", fix=fix)


def _value(window: Window) -> Any:
    try:
        return window.value()
    except Fault as fault:
        raise DataError(window.problem(fault, window.at)) from None


def _fault(window: Window, what: str) -> DataError:
    return DataError(window.problem(Fault(f"not valid JSON: {what}", window.at), window.at))


def _under(window: Window, field: str) -> Iterator[Row]:
    """The rows under a key of a top-level object."""
    keys, found = [], False
    for key in _keys(window):
        keys.append(key)
        if key == field and window.sign() == "[":
            yield from _array(window)
            found = True
        else:
            _pass_over(window)
    if not found:
        fix = did_you_mean(field, [key for key in keys if key != field]) or "keys: " + ", ".join(keys[:8])
        raise DataError(Problem("E-DATA-007", f'no list of rows under "{field}"', where=window.name, fix=fix))


def _keys(window: Window) -> Iterator[str]:
    """The keys of the object that `window` stands before; whoever asks moves it past each value."""
    if window.sign() != "{":
        what = "`field` is for a file that holds one object, and this one does not begin with {"
        raise DataError(Problem("E-DATA-007", what, where=f"{window.name}:{window.line()}", fix="leave field out"))
    window.at += 1
    while window.sign() != "}":
        key = _value(window)
        if not isinstance(key, str) or window.sign() != ":":
            raise _fault(window, "expected a name and a colon")
        window.at += 1
        window.skip()
        yield key
        sign = window.sign()
        if sign not in (",", "}"):
            raise _fault(window, "expected , or }")
        if sign == ",":
            window.at += 1
    window.at += 1
    _end(window)


def _pass_over(window: Window) -> None:
    """Move past a value; past a list element by element, because it may be long."""
    if window.sign() != "[":
        _value(window)
        return
    for _element in _elements(window):
        pass


def _first_list(blob: Blob) -> str | None:
    """The first key of a top-level object whose value is a list of objects."""
    with blob.open() as stream, contextlib.suppress(DataError):
        window = Window(stream, blob.name)
        for key in _keys(window):
            if window.sign() == "[":
                if any(isinstance(value, dict) for _line, value in _elements(window)):
                    return key
            else:
                _value(window)
    return None
