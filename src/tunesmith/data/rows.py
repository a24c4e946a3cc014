"""What travels from a source to a format: rows with their place, and the two ways in which one can be unusable."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, NamedTuple, NoReturn

from tunesmith.core.errors import Problem
from tunesmith.core.types import Origin
from tunesmith.data.doubled_keys import mark_doubled

__all__ = [
    "AGAIN",
    "DECODER",
    "TOO_DEEP",
    "TOO_LONG_A_NUMBER",
    "Broken",
    "NotJSON",
    "Row",
    "RowBlock",
    "RowError",
    "Unparsed",
    "not_an_object",
    "parse",
    "shorten",
]

AGAIN = "write the file again, or take it out of dataset"
"""What to do about a file that holds nothing."""


TOO_DEEP = "the JSON is nested too deeply"
TOO_LONG_A_NUMBER = "the JSON holds a number of thousands of digits"


class Unparsed(bytes):
    """A line of a JSON Lines file as it stands, known to be UTF-8. `parse` makes a row of it, in whichever process
    needs the row: lines are cheaper to hand over than what is in them."""

    __slots__ = ()


class Row(NamedTuple):
    """One row of a file. `values` is `Broken` where the row could not even be parsed, `Unparsed` where it waits for
    `parse`."""

    values: Mapping[str, Any] | Broken | Unparsed
    origin: Origin


class RowBlock(list[Row]):
    """Rows that may go to another process: as columns, which takes an eighth of the time that so many objects take."""

    __slots__ = ()

    def __reduce__(self) -> Any:
        lines = all(type(row.values) is Unparsed for row in self)
        values = [bytes(row.values) if lines else row.values for row in self]  # type: ignore[arg-type]
        origins = [row.origin for row in self]
        files = dict.fromkeys(origin.file for origin in origins)
        which = {file: number for number, file in enumerate(files)}
        places = [which[origin.file] for origin in origins] if len(files) > 1 else None
        return _block, (
            values,
            lines,
            list(files),
            places,
            [origin.row for origin in origins],
            [origin.line for origin in origins],
        )


def _block(
    values: Sequence[Any],
    lines: bool,
    files: Sequence[str],
    which: Sequence[int] | None,
    rows: Sequence[int],
    numbers: Sequence[int | None],
) -> RowBlock:
    names = repeat(files[0]) if which is None and files else [files[number] for number in which or ()]
    made = map(Unparsed, values) if lines else values
    return RowBlock(map(Row, made, map(Origin, names, rows, numbers)))


@dataclass(frozen=True, slots=True)
class Broken:
    """A row that its source could not parse; it is counted with the rows that its format cannot use."""

    code: str
    reason: str
    got: str | None = None


def parse(values: Mapping[str, Any] | Broken | Unparsed) -> Mapping[str, Any] | Broken:
    """The values of a row; what is not `Unparsed` is returned as it is."""
    if not isinstance(values, Unparsed):
        return values
    line = values.decode("utf-8")
    try:
        value = DECODER.decode(line)
    except NotJSON as error:
        return Broken("E-DATA-003", str(error), shorten(line.strip(), 40))
    except json.JSONDecodeError as error:
        got = f"{error.msg} at column {error.colno}: {shorten(line.strip(), 40)}"
        return Broken("E-DATA-003", "the line is not valid JSON", got)
    except RecursionError:
        return Broken("E-DATA-003", TOO_DEEP, shorten(line.strip(), 40))
    except ValueError:  # Python refuses whole numbers of more than 4,300 digits
        return Broken("E-DATA-003", TOO_LONG_A_NUMBER, shorten(line.strip(), 40))
    return mark_doubled(value, values) if isinstance(value, dict) else not_an_object(value)


class NotJSON(ValueError):
    """A word that Python's reader takes and JSON has not."""


def _refuse_constant(word: str) -> NoReturn:
    raise NotJSON(f"{word} is not JSON")


DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
"""Of JSON as the standard says it."""


def not_an_object(value: Any) -> Broken:
    """The row for a JSON value that holds no named fields."""
    return Broken("E-DATA-008", "the row is not a JSON object", shorten(value))


class RowError(Exception):
    """A row that cannot be used. `reason` is the same for all rows with the same fault, so that they can be counted;
    what differs from row to row is in `got`."""

    def __init__(
        self, code: str, reason: str, field: str | None = None, got: Any = None, fix: str | None = None
    ) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.field = field
        self.got = None if got is None else shorten(got) or None
        self.fix = fix
        self.media: Sequence[tuple[str, Problem]] = ()
        """All media of the row that cannot be used, by their names, where that is the fault."""

    def at(self, place: str) -> RowError:
        """This error with the part of the row where it is said in `got`."""
        self.got = place if self.got is None else f"{place}: {self.got}"
        return self


def shorten(value: Any, width: int = 70) -> str:
    """A value on one line of at most `width` characters."""
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text[: 4 * width].split())
    return text if len(text) <= width else text[: width - 3] + "..."
