"""Plain text: one row per line, in the column `text`, as the field reads it. Lines of blanks are passed over."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.types import Origin
from tunesmith.data.rows import AGAIN, Row
from tunesmith.data.sources.base import Blob
from tunesmith.data.sources.decode import lines

__all__ = ["read_txt"]


def read_txt(blob: Blob) -> Iterator[Row]:
    row = 0
    for number, data in lines(blob):
        line = data.decode("utf-8").rstrip("\r\n")
        if line.strip():
            yield Row({"text": line}, Origin(blob.name, row, number))
            row += 1
    if row == 0:
        raise DataError(Problem("E-DATA-001", "the file holds only blank lines", blob.name, fix=AGAIN))
