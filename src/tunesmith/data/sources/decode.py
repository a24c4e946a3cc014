"""Bytes to text and to lines, a block at a time, with the line of what is not UTF-8 and a limit for what has no end."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.log import get_logger
from tunesmith.data.sources.base import Blob

__all__ = ["BLOCK", "BOM", "LONGEST_ROW", "base_name", "check_length", "decode", "lines", "not_utf8", "without_mark"]

BOM = b"\xef\xbb\xbf"
BLOCK = 1 << 20
"""Bytes that are read at a time."""
LONGEST_ROW = 100_000_000
"""Bytes of a row, or of a line, beyond which a file is refused. A book has a million."""


def lines(blob: Blob) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line without its newline): UTF-8, cut at newlines only; a byte order mark is left out.

    Raises DataError: E-DATA-004 with the line where the text stops being UTF-8, E-DATA-008 for a line without end.
    """
    number = 1
    with blob.open() as stream:
        held: list[bytes] = []  # the beginning of a line that does not end in the blocks read so far
        size = 0
        block = without_mark(stream.read(max(BLOCK, 2 * len(BOM))), blob.name)
        while block:
            end = block.rfind(b"\n")
            if end < 0:
                held.append(block)
                size += len(block)
                check_length(size, blob.name, number)
            else:
                whole = b"".join([*held, block[:end]])
                check_utf8(whole, blob.name, number)
                for line in whole.split(b"\n"):
                    yield number, line
                    number += 1
                held = [block[end + 1 :]]
                size = len(held[0])
            block = stream.read(BLOCK)
        if rest := b"".join(held):
            check_utf8(rest, blob.name, number)
            yield number, rest


def without_mark(data: bytes, name: str) -> bytes:
    """The beginning of a file without a byte order mark."""
    if not data.startswith(BOM):
        return data
    _say_mark(name)
    return data[len(BOM) :]


@cache  # a file is opened more than once in a run
def _say_mark(name: str) -> None:
    get_logger().info("%s begins with a byte order mark, which is left out", name)


def check_utf8(data: bytes, name: str, first_line: int) -> None:
    """Raises DataError E-DATA-004 with the line where the text stops being UTF-8."""
    if not data.isascii():
        decode(data, name, first_line)


def decode(data: bytes, name: str, first_line: int = 1) -> str:
    """Raises DataError E-DATA-004 with the line where the text stops being UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(not_utf8(error, name, first_line)) from error


def not_utf8(error: UnicodeDecodeError, name: str, first_line: int = 1, column: int = 0) -> Problem:
    """`first_line` is the line in which the bytes of the error begin, `column` how many bytes of it come before."""
    data = error.object
    line = first_line + data.count(b"\n", 0, error.start)
    start = data.rfind(b"\n", 0, error.start) + 1
    position = error.start - start + 1 + (column if start == 0 else 0)
    guess = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "ISO-8859-1"
    short = base_name(name)
    return Problem(
        "E-DATA-004",
        f"byte 0x{data[error.start]:02x} at position {position} of the line is not UTF-8 text",
        where=f"{name}:{line}",
        got=data[start : start + 60].decode("utf-8", "replace"),
        fix=f"convert the file, for example: iconv -f {guess} -t UTF-8 {short} > utf8_{short}",
    )


def base_name(name: str) -> str:
    """The last part of a path, an address or a member of an archive."""
    return name.replace("\\", "/").replace("!", "/").rsplit("/", 1)[-1]


def check_length(size: int, name: str, line: int) -> None:
    """Raises DataError E-DATA-008 for a row that is longer than any that could be meant."""
    if size > LONGEST_ROW:
        what = f"a row of more than {LONGEST_ROW:,} bytes: it is not read any further"
        fix = "split it into rows, one per document; a file of one line may need another ending (.json, .txt)"
        raise DataError(Problem("E-DATA-008", what, where=f"{name}:{line}", fix=fix))
