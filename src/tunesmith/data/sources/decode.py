"""Bytes to text, with the line of what is not UTF-8."""

from __future__ import annotations

from pathlib import Path

from tunesmith.core.errors import DataError, Problem

__all__ = ["BOM", "decode", "not_utf8", "read_text"]

BOM = b"\xef\xbb\xbf"


def read_text(path: Path) -> str:
    """The whole file as text; a byte order mark is left out, line ends stay as they are."""
    return decode(path.read_bytes().removeprefix(BOM), path)


def decode(data: bytes, path: Path, first_line: int = 1) -> str:
    """Raises DataError E-DATA-004 with the line where the text stops being UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(not_utf8(data, error, path, first_line)) from error


def not_utf8(data: bytes, error: UnicodeDecodeError, path: Path, first_line: int = 1) -> Problem:
    line = first_line + data.count(b"\n", 0, error.start)
    start = data.rfind(b"\n", 0, error.start) + 1
    guess = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "ISO-8859-1"
    return Problem(
        "E-DATA-004",
        f"byte 0x{data[error.start]:02x} at position {error.start - start + 1} of the line is not UTF-8 text",
        where=f"{path}:{line}",
        got=data[start : start + 60].decode("utf-8", "replace"),
        fix=f"convert the file, for example: iconv -f {guess} -t UTF-8 {path.name} > utf8_{path.name}",
    )
