"""A stretch of a text file that moves along while JSON values are read from it: the file is never held whole."""

from __future__ import annotations

import codecs
import json
import re
from typing import Any, BinaryIO

from tunesmith.core.errors import DataError, Problem
from tunesmith.data.doubled_keys import mark_doubled
from tunesmith.data.rows import DECODER, TOO_DEEP, TOO_LONG_A_NUMBER, NotJSON, shorten
from tunesmith.data.sources.decode import BLOCK, BOM, check_length, not_utf8, without_mark

__all__ = ["BLANK", "Fault", "Window"]

BLANK = re.compile(r"[ \t\r\n]*")
# Characters behind the place of an error that show that the text was not merely cut there: the longest word of JSON
# is a pair of \uXXXX escapes.
_LONGEST_WORD = 16
_SHOWN = 30  # characters on each side of a fault that a message shows


class Fault(Exception):
    """What is wrong with the text, and where in `Window.text`. `line`: the fault needs no column."""

    def __init__(self, what: str, position: int, *, column: bool = True) -> None:
        super().__init__(what)
        self.what = what
        self.position = position
        self.column = column


class Window:
    """`text` begins anywhere in the file and ends where reading has come to; `at` is where the next sign is looked for.

    `value`, `sign` and `skip` move `at` and read on by themselves. What lies before `at` may be dropped by any of them.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.name = name
        self.text = ""
        self.at = 0
        self.ended = False
        self.bytes = 0
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._line = 1  # the line in which `text` begins
        self._column = 0  # characters of that line before `text`
        self._counted = 0  # `self._line_here` is the line of this position of `text`
        self._line_here = 1
        self._read(max(BLOCK, 2 * len(BOM)))

    def line(self) -> int:
        """The line, from 1, of `at`."""
        self._line_here += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._line_here

    def skip(self) -> None:
        """Move to the next sign that is not blank, or to the end of the file."""
        while True:
            self.at = BLANK.match(self.text, self.at).end()  # type: ignore[union-attr]  # matches nothing too
            if self.at < len(self.text) or not self.grow():
                return

    def sign(self) -> str:
        """The next sign that is not blank, without going past it; nothing at the end of the file."""
        self.skip()
        return self.text[self.at : self.at + 1]

    def value(self) -> Any:
        """The JSON value at `at`. Raises Fault with the place where the text stops being JSON."""
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.at)
            except NotJSON as error:
                raise Fault(str(error), self.at, column=False) from None
            except json.JSONDecodeError as error:
                if self._is_cut(error) and not self.ended:
                    self.grow()
                    continue
                raise Fault(f"not valid JSON: {error.msg[0].lower()}{error.msg[1:]}", error.pos) from None
            except RecursionError:
                raise Fault(TOO_DEEP, self.at, column=False) from None
            except ValueError:  # Python refuses whole numbers of more than 4,300 digits
                raise Fault(TOO_LONG_A_NUMBER, self.at, column=False) from None
            if end == len(self.text) and not self.ended:  # a number may go on
                self.grow()
                continue
            begin, self.at = self.at, end
            return mark_doubled(value, self.text, begin, end) if isinstance(value, dict) else value

    def grow(self) -> bool:
        """Drop what lies well before `at` and read as much again as is left; False at the end of the file."""
        if self.ended:
            return False
        line = self.line()
        check_length(len(self.text) - self.at, self.name, line)
        dropped = max(0, self.at - _SHOWN)
        newline = self.text.rfind("\n", 0, dropped)
        self._column = dropped - newline - 1 if newline >= 0 else self._column + dropped
        self._line = self._line_of(dropped)
        self.text = self.text[dropped:]
        self.at = self._counted = self.at - dropped
        return self._read(max(BLOCK, len(self.text)))

    def problem(self, fault: Fault, begin: int) -> Problem:
        """The problem for a fault; `begin` is where in `text` the row or the missing sign should have begun."""
        text, position = self.text, fault.position
        if not fault.column:
            return Problem("E-DATA-003", fault.what, where=f"{self.name}:{self._line_of(position)}")
        what = fault.what
        blank_behind = BLANK.match(text, position).end() == len(text)  # type: ignore[union-attr]
        cut = self.ended and (blank_behind or "unterminated string" in what)
        if cut:
            first = self._line_of(begin)
            what += f"; the file seems to be cut off (the last row begins in line {first}, {self.bytes:,} bytes in all)"
        newline = text.rfind("\n", 0, position)
        column = position - newline if newline >= 0 else self._column + position + 1
        return Problem(
            "E-DATA-003",
            what,
            where=f"{self.name}:{self._line_of(position)}:{column}",
            got=shorten(text[max(0, position - _SHOWN) : position + _SHOWN]) or None,
            fix="write the file again, or get it again" if cut else None,
        )

    def _line_of(self, position: int) -> int:
        return self._line + self.text.count("\n", 0, position)

    def _is_cut(self, error: json.JSONDecodeError) -> bool:
        """Whether the error may be there only because the text ends where reading has come to."""
        return error.msg.startswith("Unterminated string") or len(self.text) - error.pos < _LONGEST_WORD

    def _read(self, size: int) -> bool:
        data = self._stream.read(size)
        if not self.bytes:
            data = without_mark(data, self.name)
        self.bytes += len(data)
        self.ended = not data
        try:
            added = self._decoder.decode(data, final=self.ended)
        except UnicodeDecodeError as error:
            newline = self.text.rfind("\n")
            before = self.text[newline + 1 :].encode("utf-8")
            first = self._line_of(len(self.text))
            column = len(before) + (self._column if newline < 0 else 0)
            raise DataError(not_utf8(error, self.name, first, column)) from error
        self.text += added
        return not self.ended
