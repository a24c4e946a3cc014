"""Tables: CSV and TSV (with the line where each row begins), Parquet, and Arrow files and streams."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.types import Origin
from tunesmith.data.rows import AGAIN, Broken, Row, shorten
from tunesmith.data.sources.decode import read_text

if TYPE_CHECKING:
    import pyarrow

__all__ = ["read_arrow", "read_csv", "read_parquet", "read_tsv"]

_BATCH = 1000  # rows turned into Python objects at a time
_LONGEST_FIELD = 2**31 - 1


def read_csv(path: Path) -> Iterator[Row]:
    """Rows of a table with a header line, separated by commas. All values are text."""
    return _delimited(path, ",")


def read_tsv(path: Path) -> Iterator[Row]:
    return _delimited(path, "\t")


def _delimited(path: Path, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(_LONGEST_FIELD)  # the default of 128 KiB is shorter than a long document
    reader = csv.reader(_lines(read_text(path)), delimiter=delimiter, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise DataError(Problem("E-DATA-002", "the table holds no rows", str(path), fix=AGAIN))
        _check_header(header, path)
        row, line = 0, reader.line_num + 1
        for fields in reader:
            if fields:  # an empty line
                yield _table_row(header, fields, Origin(str(path), row, line))
                row += 1
            line = reader.line_num + 1
    except csv.Error as error:
        line = reader.line_num
        fix = 'inside a quoted field a quote is written twice: ""'
        raise DataError(Problem("E-DATA-010", f"not a valid table: {error}", f"{path}:{line}", fix=fix)) from error
    if row == 0:
        raise DataError(Problem("E-DATA-002", "the table holds a header and no rows", str(path), fix=AGAIN))


def _lines(text: str) -> Iterator[str]:
    """Lines with their ends, cut at newlines only (str.splitlines also cuts at U+2028 and the like)."""
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end


def _check_header(header: list[str], path: Path) -> None:
    if len(header) == 1 and (other := next((sign for sign in (";", "\t", "|") if sign in header[0]), None)):
        what = f"the columns seem to be separated by {other!r}"
        fix = "save it with commas" if other != "\t" else "name it .tsv"
        raise DataError(Problem("E-DATA-010", what, f"{path}:1", got=header[0], fix=fix))
    if twice := [name for name in header if header.count(name) > 1]:
        raise DataError(Problem("E-DATA-010", f'the column "{twice[0]}" is there twice', where=f"{path}:1"))


def _table_row(header: list[str], fields: list[str], origin: Origin) -> Row:
    if len(fields) != len(header):
        got = f"{len(fields)} instead of {len(header)} fields: {shorten(fields, 40)}"
        return Row(Broken("E-DATA-010", "the row has not as many fields as the header", got), origin)
    return Row(dict(zip(header, fields, strict=True)), origin)


def read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            yield from _batches(file.iter_batches(batch_size=_BATCH), path)
    except (pyarrow.ArrowException, OSError) as error:  # damaged pages are plain OSErrors
        raise DataError(_unreadable(path, "Parquet", error)) from error


def read_arrow(path: Path) -> Iterator[Row]:
    """An Arrow file (with a footer) or an Arrow stream (as `datasets` writes them)."""
    import pyarrow
    from pyarrow import ipc

    try:
        with pyarrow.memory_map(str(path)) as source:
            is_file = source.read(6) == b"ARROW1"
            source.seek(0)
            if is_file:
                reader = ipc.open_file(source)
                batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
            else:
                batches = iter(ipc.open_stream(source))
            yield from _batches(batches, path)
    except (pyarrow.ArrowException, OSError) as error:  # damaged pages are plain OSErrors
        raise DataError(_unreadable(path, "Arrow", error)) from error


def _batches(batches: Iterator[pyarrow.RecordBatch], path: Path) -> Iterator[Row]:
    name, row = str(path), 0
    for batch in batches:
        for start in range(0, batch.num_rows, _BATCH):
            for values in batch.slice(start, _BATCH).to_pylist():
                yield Row(values, Origin(name, row))
                row += 1
    if row == 0:
        raise DataError(Problem("E-DATA-002", "the table holds no rows", name, fix=AGAIN))


def _unreadable(path: Path, kind: str, error: Exception) -> Problem:
    return Problem("E-DATA-009", f"cannot be read as {kind}", where=str(path), got=str(error), fix="get the file again")
