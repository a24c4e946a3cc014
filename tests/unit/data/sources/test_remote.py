"""Files at addresses, against a server on this machine and a cloud in memory."""

from __future__ import annotations

import errno
import gzip
import io
import json
import logging
import os
import zipfile

import fsspec
import pytest
from pyarrow import Table, parquet

from tunesmith.core.errors import (
    DataError,
    MachineError,
    MissingInputError,
    StorageError,
    TunesmithError,
    UnavailableError,
)
from tunesmith.data.rows import parse
from tunesmith.data.sources import http, open_source
from tunesmith.data.spec import DatasetSpec

ROWS = [{"a": "1"}, {"a": "zwei"}, {"a": "三"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def spec(location: str, **keys) -> DatasetSpec:
    return DatasetSpec("d", location, "url", **keys)


def rows(one: DatasetSpec, **how) -> list[object]:
    return [parse(row.values) for file in open_source(one, **how) for row in file.rows()]


def table(count: int) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(Table.from_pylist([{"a": f"{i}" * 100} for i in range(count)]), buffer, row_group_size=100)
    return buffer.getvalue()


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


def put(system, name: str, data: bytes) -> None:
    with system.open(name, "wb") as file:
        file.write(data)


# --- a server ---


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("parts", [True, False])
def test_rows_at_an_address(server, cache, streaming, parts):
    server.parts = parts
    server.files["/x.jsonl"] = LINES
    one = spec(f"{server.address}/x.jsonl")
    assert rows(one, streaming=streaming) == ROWS
    (file,) = open_source(one, streaming=streaming)
    assert next(iter(file.rows())).origin.file == f"{server.address}/x.jsonl"


def test_a_file_is_fetched_once_and_again_when_it_changes(server, cache):
    server.files["/x.jsonl"] = LINES
    one = spec(f"{server.address}/x.jsonl")
    assert rows(one) == ROWS
    (first,) = open_source(one)
    assert [method for method, _path, _range in server.asked].count("GET") == 1
    server.files["/x.jsonl"] = b'{"a": "new"}\n'
    assert rows(one) == [{"a": "new"}]
    (second,) = open_source(one)
    assert first.digest() != second.digest()


def test_a_server_that_tells_no_version_is_asked_every_time(server, cache):
    server.tags = False
    server.files["/x.jsonl"] = LINES
    one = spec(f"{server.address}/x.jsonl")
    assert rows(one) == ROWS
    server.files["/x.jsonl"] = LINES.replace(b"zwei", b"drei")  # as long as before
    assert rows(one)[1] == {"a": "drei"}
    (file,) = open_source(one, streaming=True)
    assert file.digest() != file.digest()  # nothing may be remembered of it


def test_offline_asks_nobody(server, cache):
    server.files["/x.jsonl"] = LINES
    one = spec(f"{server.address}/x.jsonl")
    with pytest.raises(MissingInputError, match="not fetched before") as caught:
        open_source(one, offline=True)
    assert caught.value.code == "E-DATA-041"
    assert not server.asked
    rows(one)
    server.asked.clear()
    assert rows(one, offline=True) == ROWS
    assert not server.asked


def test_a_table_is_read_in_parts_where_it_lies(server, cache):
    data = table(50_000)
    server.files["/x.parquet"] = data
    (file,) = open_source(spec(f"{server.address}/x.parquet"), streaming=True)
    server.asked.clear()
    read = iter(file.rows())
    first = [next(read).values["a"] for _ in range(3)]
    assert first == ["0" * 100, "1" * 100, "2" * 100]
    starts = [int(range_.removeprefix("bytes=").split("-")[0]) for _m, _path, range_ in server.asked if range_]
    assert max(starts) > len(data) - 300_000  # the footer
    read.close()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.jsonl.gz", gzip.compress(LINES, mtime=0)),
        ("x.csv?download=true", b"a\n1\nzwei\n\xe4\xb8\x89\n"),
        ("x%20y.json", json.dumps(ROWS).encode()),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_the_content_and_the_path_tell_the_kind(server, cache, name, data, streaming):
    server.files["/" + name.split("?")[0]] = data
    assert rows(spec(f"{server.address}/{name}"), streaming=streaming) == ROWS


def test_a_zip_is_read_where_it_lies(server, cache):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("in/a.jsonl", LINES)
    server.files["/x.zip"] = buffer.getvalue()
    assert rows(spec(f"{server.address}/x.zip"), streaming=True) == ROWS


def test_a_kind_that_the_address_does_not_tell_can_be_said(server, cache):
    server.files["/rows"] = LINES
    with pytest.raises(DataError, match="file_type"):
        open_source(spec(f"{server.address}/rows"))
    assert rows(spec(f"{server.address}/rows", file_type="jsonl")) == ROWS


def test_what_a_server_refuses_is_explained(server, cache):
    for path, status, kind, code in (
        ("/missing.jsonl", None, MissingInputError, "E-DATA-020"),
        ("/private.jsonl", 403, UnavailableError, "E-DATA-040"),
        ("/down.jsonl", 503, UnavailableError, "E-DATA-040"),
    ):
        if status:
            server.refused[path] = status
        with pytest.raises(TunesmithError) as caught:
            open_source(spec(server.address + path))
        assert type(caught.value) is kind
        assert caught.value.code == code
        assert caught.value.problems[0].where == server.address + path


def test_a_server_that_is_not_there_is_explained(server, cache):
    address = "http://127.0.0.1:1/x.jsonl"
    with pytest.raises(UnavailableError, match="cannot be reached"):
        open_source(spec(address))


@pytest.mark.parametrize("streaming", [False, True])
def test_an_answer_that_breaks_off_is_no_end_of_the_file(server, cache, streaming):
    server.parts = False  # else the rest is asked for
    server.files["/x.jsonl"] = LINES * 1000
    server.cut = 2000
    with pytest.raises(UnavailableError):
        rows(spec(f"{server.address}/x.jsonl"), streaming=streaming)
    server.cut = None
    assert len(rows(spec(f"{server.address}/x.jsonl"))) == 3000  # nothing half fetched was kept


LONG = [{"a": f"{number} " * 200} for number in range(4000)]
LONG_LINES = "".join(json.dumps(row) + "\n" for row in LONG).encode()  # 4 MB


@pytest.mark.parametrize("cut", [1_200_000, 1_900_000])
def test_what_was_fetched_before_is_not_fetched_again(server, cache, cut, monkeypatch, caplog):
    """The connection breaks off, over and over, and the whole run with it."""
    monkeypatch.setattr(http, "RETRIES", 0)
    server.files["/x.jsonl"] = LONG_LINES
    one = spec(f"{server.address}/x.jsonl")
    server.cut = cut
    for _ in range(2):
        with pytest.raises(UnavailableError):
            rows(one)
    server.cut = None
    server.asked.clear()
    with caplog.at_level(logging.INFO, "tunesmith"):
        assert rows(one) == LONG
    begins = [int(range_[6:-1]) for method, _path, range_ in server.asked if method == "GET" and range_]
    assert len(begins) == 1
    assert begins[0] >= 2_000_000  # one block of each attempt
    assert "fetched before" in caplog.text
    assert [path.name for path in cache.rglob("*x.jsonl*") if not path.name.endswith(".lock")] == ["x.jsonl"]


def test_a_file_that_changed_is_fetched_from_its_beginning(server, cache, monkeypatch):
    monkeypatch.setattr(http, "RETRIES", 0)
    one = spec(f"{server.address}/x.jsonl")
    server.files["/x.jsonl"], server.cut = LONG_LINES, 2_500_000
    with pytest.raises(UnavailableError):
        rows(one)
    server.files["/x.jsonl"], server.cut = LONG_LINES.replace(b"1", b"2"), None
    assert rows(one) == [{"a": row["a"].replace("1", "2")} for row in LONG]


def test_what_lies_behind_a_crash_of_the_machine_is_not_trusted(server, cache, monkeypatch):
    """Only what was told to be on the disk is; behind it a file may hold anything."""
    monkeypatch.setattr(http, "RETRIES", 0)
    server.files["/x.jsonl"], server.cut = LONG_LINES, 2_500_000
    one = spec(f"{server.address}/x.jsonl")
    with pytest.raises(UnavailableError):
        rows(one)
    (part,) = cache.rglob(".x.jsonl.part")
    with part.open("ab") as file:
        file.write(bytes(1000))
    server.cut = None
    assert rows(one) == LONG


def test_a_full_disk_is_told_apart_from_a_network_that_fails(server, cache, monkeypatch):
    server.files["/x.jsonl"] = LINES
    real = os.fsync

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="E-DATA-120"):
            rows(spec(f"{server.address}/x.jsonl"))
    assert os.fsync is real
    assert rows(spec(f"{server.address}/x.jsonl")) == ROWS


# --- a cloud ---


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_in_a_cloud(memory, cache, streaming):
    put(memory, "/bucket/a.jsonl", LINES)
    put(memory, "/bucket/b.jsonl", b'{"a": "b"}\n')
    put(memory, "/bucket/.hidden", b"x")
    put(memory, "/bucket/deep/c.jsonl", b'{"a": "c"}\n')
    assert rows(spec("memory://bucket/a.jsonl"), streaming=streaming) == ROWS
    assert rows(spec("memory://bucket/*.jsonl"), streaming=streaming) == [*ROWS, {"a": "b"}]
    assert rows(spec("memory://bucket/**/*.jsonl"), streaming=streaming) == [*ROWS, {"a": "b"}, {"a": "c"}]
    assert rows(spec("memory://bucket"), streaming=streaming) == [*ROWS, {"a": "b"}]


def test_a_change_in_the_cloud_is_noticed(memory, cache):
    put(memory, "/bucket/a.jsonl", LINES)
    one = spec("memory://bucket/a.jsonl")
    before = [open_source(one, streaming=streaming)[0].digest() for streaming in (False, True)]
    assert [open_source(one, streaming=streaming)[0].digest() for streaming in (False, True)] == before
    put(memory, "/bucket/a.jsonl", LINES.replace(b"zwei", b"drei"))
    after = [open_source(one, streaming=streaming)[0].digest() for streaming in (False, True)]
    assert not set(after) & set(before)
    assert rows(one, offline=True)[1] == {"a": "drei"}  # the last that was fetched


def test_offline_needs_all_files_of_a_pattern(memory, cache):
    for name in "ab":
        put(memory, f"/bucket/{name}.jsonl", LINES)
    one = spec("memory://bucket/*.jsonl")
    rows(one)
    next((cache / "data" / "files").glob("*/*/b.jsonl")).unlink()
    with pytest.raises(MissingInputError) as caught:
        open_source(one, offline=True)
    assert [problem.where for problem in caught.value.problems] == ["memory:///bucket/b.jsonl"]


def test_what_is_not_in_the_cloud_is_said(memory, cache):
    for location in ("memory://bucket/a.jsonl", "memory://bucket/*.jsonl"):
        with pytest.raises(MissingInputError) as caught:
            open_source(spec(location))
        assert caught.value.code == "E-DATA-020"


def test_a_table_in_the_cloud_streams(memory, cache):
    put(memory, "/bucket/a.parquet", table(250))
    assert len(rows(spec("memory://bucket/a.parquet"), streaming=True)) == 250


def test_an_unknown_place_is_refused(cache):
    with pytest.raises(DataError, match='did you mean "s3"'):
        open_source(spec("s33://bucket/a.jsonl"))


@pytest.mark.parametrize(("address", "package"), [("s3://b/a.jsonl", "s3fs"), ("gs://b/a.jsonl", "gcsfs")])
def test_a_missing_package_is_named(cache, monkeypatch, address, package):
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MachineError) as caught:
        open_source(spec(address))
    assert caught.value.code == "E-DATA-042"
    assert f"pip install {package}" in str(caught.value)


def test_clouds_are_asked_without_an_account_first(memory, cache, monkeypatch):
    """Stands in for s3fs: a file system that refuses whoever has no account."""
    put(memory, "/bucket/a.jsonl", LINES)
    tried = []

    def url_to_fs(url, **options):
        tried.append(options)
        if options.get("anon"):
            raise PermissionError("Access Denied")
        return memory, "/bucket/a.jsonl"

    monkeypatch.setattr(fsspec.core, "url_to_fs", url_to_fs)
    assert rows(spec("s3://bucket/a.jsonl")) == ROWS
    assert tried[:2] == [{"anon": True}, {}]
