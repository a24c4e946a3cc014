"""Tables: CSV and TSV (with the line where each row begins), Parquet, and Arrow files and streams."""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.types import Origin
from tunesmith.data.rows import AGAIN, Broken, Row, shorten
from tunesmith.data.sources.base import Blob
from tunesmith.data.sources.decode import BLOCK, lines

if TYPE_CHECKING:
    import pyarrow

__all__ = ["read_arrow", "read_csv", "read_parquet", "read_tsv"]

_BATCH = 1000  # rows turned into Python objects at a time
_LONGEST_FIELD = 2**31 - 1
_MOST_IN_MEMORY = 64_000_000  # bytes of an unpacked table; a larger one goes to a temporary file


def read_csv(blob: Blob) -> Iterator[Row]:
    """Rows of a table with a header line, separated by commas. All values are text."""
    return _delimited(blob, ",")


def read_tsv(blob: Blob) -> Iterator[Row]:
    return _delimited(blob, "\t")


def _delimited(blob: Blob, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(_LONGEST_FIELD)  # the default of 128 KiB is shorter than a long document
    name = blob.name
    reader = csv.reader(_lines(blob), delimiter=delimiter, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise DataError(Problem("E-DATA-002", "the table holds no rows", name, fix=AGAIN))
        _check_header(header, name)
        row, line = 0, reader.line_num + 1
        for fields in reader:
            if fields:  # an empty line
                yield _table_row(header, fields, Origin(name, row, line))
                row += 1
            line = reader.line_num + 1
    except csv.Error as error:
        fix = 'inside a quoted field a quote is written twice: ""'
        what, place = f"not a valid table: {error}", f"{name}:{reader.line_num}"
        raise DataError(Problem("E-DATA-010", what, place, fix=fix)) from error
    if row == 0:
        raise DataError(Problem("E-DATA-002", "the table holds a header and no rows", name, fix=AGAIN))


def _lines(blob: Blob) -> Iterator[str]:
    for _number, line in lines(blob):
        yield line.decode("utf-8") + "\n"


def _check_header(header: list[str], name: str) -> None:
    if len(header) == 1 and (other := next((sign for sign in (";", "\t", "|") if sign in header[0]), None)):
        what = f"the columns seem to be separated by {other!r}"
        fix = "save it with commas" if other != "\t" else "name it .tsv"
        raise DataError(Problem("E-DATA-010", what, f"{name}:1", got=header[0], fix=fix))
    if twice := [name for name in header if header.count(name) > 1]:
        raise DataError(Problem("E-DATA-010", f'the column "{twice[0]}" is there twice', where=f"{name}:1"))


def _table_row(header: list[str], fields: list[str], origin: Origin) -> Row:
    if len(fields) != len(header):
        got = f"{len(fields)} instead of {len(header)} fields: {shorten(fields, 40)}"
        return Row(Broken("E-DATA-010", "the row has not as many fields as the header", got), origin)
    return Row(dict(zip(header, fields, strict=True)), origin)


def read_parquet(blob: Blob) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        with _seekable(blob) as source, parquet.ParquetFile(source) as file:
            yield from _batches(file.iter_batches(batch_size=_BATCH), blob.name)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:  # damaged pages are plain OSErrors
        raise DataError(_unreadable(blob.name, "Parquet", error)) from error


def read_arrow(blob: Blob) -> Iterator[Row]:
    """An Arrow file (with a footer) or an Arrow stream (as `datasets` writes them)."""
    import pyarrow
    from pyarrow import ipc

    try:
        with _seekable(blob) as source:
            is_file = source.read(6) == b"ARROW1"
            source.seek(0)
            if is_file:
                reader = ipc.open_file(source)
                batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
            else:
                batches = iter(ipc.open_stream(source))
            yield from _batches(batches, blob.name)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:  # damaged pages are plain OSErrors
        raise DataError(_unreadable(blob.name, "Arrow", error)) from error


def _seekable(blob: Blob) -> Any:
    """The bytes in a form in which pyarrow can read parts of them: a file on this machine is mapped into memory."""
    import pyarrow

    if blob.path is not None:
        return pyarrow.memory_map(str(blob.path))
    stream = blob.open()
    if stream.seekable():
        return pyarrow.PythonFile(stream, "r")
    with stream:  # it must be unpacked first; in memory as long as it is small
        whole = tempfile.SpooledTemporaryFile(max_size=_MOST_IN_MEMORY)  # noqa: SIM115 - pyarrow closes it
        try:
            shutil.copyfileobj(stream, whole, BLOCK)
        except BaseException:
            whole.close()
            raise
    whole.seek(0)
    return pyarrow.PythonFile(whole, "r")


def _batches(batches: Iterator[pyarrow.RecordBatch], name: str) -> Iterator[Row]:
    row = 0
    for batch in batches:
        for start in range(0, batch.num_rows, _BATCH):
            for values in batch.slice(start, _BATCH).to_pylist():
                yield Row(values, Origin(name, row))
                row += 1
    if row == 0:
        raise DataError(Problem("E-DATA-002", "the table holds no rows", name, fix=AGAIN))


def _unreadable(name: str, kind: str, error: Exception) -> Problem:
    return Problem("E-DATA-009", f"cannot be read as {kind}", where=name, got=str(error), fix="get the file again")
