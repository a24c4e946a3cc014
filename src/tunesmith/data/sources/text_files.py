"""Plain text: one row per line, in the column `text`, as the field reads it. Lines of blanks are passed over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.types import Origin
from tunesmith.data.rows import AGAIN, Row
from tunesmith.data.sources.decode import BOM, decode

__all__ = ["read_txt"]


def read_txt(path: Path) -> Iterator[Row]:
    row = 0
    with path.open("rb") as handle:
        for number, data in enumerate(handle, 1):
            line = decode(data.removeprefix(BOM) if number == 1 else data, path, number).rstrip("\r\n")
            if line.strip():
                yield Row({"text": line}, Origin(str(path), row, number))
                row += 1
    if row == 0:
        raise DataError(Problem("E-DATA-001", "the file holds only blank lines", str(path), fix=AGAIN))
