"""Packed files are read by content; what is damaged, encrypted or a bomb is refused with its name."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tracemalloc
import zipfile
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from tunesmith.core.errors import DataError
from tunesmith.data.sources import decode, packed
from tunesmith.data.sources.local import local_files, read_path

ROWS = [{"a": "1"}, {"a": "zwei"}, {"a": "三"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def arrow_packed(data: bytes, method: str) -> bytes:
    buffer = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(buffer, method) as stream:
        stream.write(data)
    return buffer.getvalue().to_pybytes()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


METHODS = {
    "gzip": gzip.compress,
    "zstd": lambda data: arrow_packed(data, "zstd"),
    "lz4": lambda data: arrow_packed(data, "lz4"),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zip": lambda data: zipped({"inner": data}),
}


def rows(name: str) -> list[object]:
    return [row.values for row in read_path(Path(name))]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.ndjson.zst", "x.jsonl.zip"])
def test_the_content_tells_that_a_file_is_packed(write, method, name):
    write(name, METHODS[method](LINES))
    assert rows(name) == ROWS


@pytest.mark.parametrize("method", ["gzip", "zstd", "bzip2", "xz"])
def test_files_packed_one_after_another_are_one_file(write, method):
    write("x.jsonl", METHODS[method](LINES) + METHODS[method](LINES))
    assert rows("x.jsonl") == ROWS * 2


def test_places_are_those_of_the_unpacked_file(write):
    write("x.jsonl.gz", gzip.compress(b"\n" + LINES))
    assert [str(row.origin) for row in read_path(Path("x.jsonl.gz"))] == [f"x.jsonl.gz:{n}" for n in (2, 3, 4)]


@pytest.mark.parametrize("name", ["x.csv", "x.json", "x.txt"])
@pytest.mark.parametrize("method", ["gzip", "zstd"])
def test_every_kind_of_text_may_be_packed(write, name, method):
    data = {"x.csv": b"a\n1\nzwei\n", "x.json": b'[{"a": "1"}, {"a": "zwei"}]', "x.txt": b"1\nzwei"}[name]
    write(name, METHODS[method](data))
    assert [list(row.values()) for row in rows(name)] == [["1"], ["zwei"]]


@pytest.mark.parametrize("most_in_memory", [10, 1_000_000])
def test_a_packed_table_is_unpacked_before_it_is_read(write, monkeypatch, most_in_memory):
    monkeypatch.setattr("tunesmith.data.sources.tables._MOST_IN_MEMORY", most_in_memory)
    buffer = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), buffer)
    data = buffer.getvalue().to_pybytes()
    write("x.parquet", gzip.compress(data))
    write("y.zip", zipped({"deep/er/y.parquet": data}))
    assert rows("x.parquet") == ROWS
    assert rows("y.zip") == ROWS


def test_the_members_of_a_zip_are_its_files_in_order(write):
    names = {"b.jsonl": LINES[:11], "a/c.jsonl": b'{"a": "c"}\n', "__MACOSX/b.jsonl": b"x", "a/.hidden": b"x"}
    write("x.zip", zipped(names))
    assert [(row.values, str(row.origin)) for row in read_path(Path("x.zip"))] == [
        ({"a": "c"}, "x.zip!a/c.jsonl:1"),
        ({"a": "1"}, "x.zip!b.jsonl:1"),
    ]
    digests = [file.digest() for file in local_files(Path("x.zip"))]
    assert len(set(digests)) == 2


def test_names_of_members_are_no_paths(write, tmp_path):
    write("d/x.zip", zipped({"../../out.jsonl": LINES, "/etc/\x1bevil.jsonl": LINES}))
    names = [file.name for file in local_files(Path("d/x.zip"))]
    assert names == ["d/x.zip!../../out.jsonl", "d/x.zip!/etc/?evil.jsonl"]
    assert rows("d/x.zip") == ROWS * 2
    assert [path.name for path in tmp_path.rglob("*")] == ["d", "x.zip"]


def refused(name: str) -> str:
    with pytest.raises(DataError) as caught:
        rows(name)
    assert caught.value.code == "E-DATA-005"
    assert caught.value.problems[0].where.startswith(name)
    return str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_a_damaged_file_is_refused(write, method):
    data = METHODS[method](json.dumps(ROWS * 500).encode())
    write("cut.json", data[: len(data) // 2])
    assert "cannot be unpacked" in refused("cut.json")


def test_a_flipped_byte_is_noticed(write):
    data = bytearray(gzip.compress(LINES * 100, mtime=0))
    data[-6] ^= 1  # in the checksum
    write("x.jsonl", bytes(data))
    assert "CRC" in refused("x.jsonl")


@pytest.mark.parametrize("method", METHODS)
def test_a_bomb_is_refused_before_it_has_swollen(write, monkeypatch, method):
    monkeypatch.setattr(packed, "UNSUSPICIOUS", 100_000)
    monkeypatch.setattr(decode, "LONGEST_ROW", 10**9)
    data = METHODS[method](b"\0" * 100_000_000)
    write("x.txt", data)
    tracemalloc.start()
    assert "swell" in refused("x.txt")
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200 * len(data) + 30_000_000


def test_a_zip_of_too_many_files_is_refused(write, monkeypatch):
    monkeypatch.setattr(packed, "MOST_MEMBERS", 3)
    write("x.zip", zipped({f"{i}.jsonl": LINES for i in range(4)}))
    assert "holds 4 files" in refused("x.zip")


def test_an_encrypted_zip_is_refused(write):
    data = bytearray(zipped({"a.jsonl": LINES}))
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    write("x.zip", bytes(data))
    assert "encrypted" in refused("x.zip")


def test_an_empty_zip_holds_no_rows(write):
    write("x.zip", zipped({}))
    with pytest.raises(DataError, match="holds no files") as caught:
        rows("x.zip")
    assert caught.value.code == "E-DATA-002"


def test_a_zip_of_mixed_files_names_the_odd_ones(write):
    write("x.zip", zipped({"a.jsonl": LINES, "b.jsonl": LINES, "README.md": b"x"}))
    with pytest.raises(DataError) as caught:
        rows("x.zip")
    (problem,) = caught.value.problems
    assert (problem.code, problem.got) == ("E-DATA-026", "README.md")
