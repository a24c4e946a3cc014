"""Files are read a piece at a time: wherever a piece ends, the rows and their places are the same."""

from __future__ import annotations

import json
import os
import pickle
import tracemalloc
from pathlib import Path

import pytest

from tunesmith.core.errors import DataError
from tunesmith.data.rows import Broken, Unparsed, parse
from tunesmith.data.sources import SourceFile, decode, window
from tunesmith.data.sources.base import LocalFile

ROWS = [{"a": 'quote " \\ [{', "b": [1, {"c": None}]}, {"a": "三\u2028\U0001f600", "n": -1.5e3}, {}, {"t": [[], "]"]}]


@pytest.fixture
def pieces(monkeypatch):
    def set_size(size: int) -> None:
        monkeypatch.setattr(decode, "BLOCK", size)
        monkeypatch.setattr(window, "BLOCK", size)

    return set_size


def read(name: str, kind: str | None = None) -> list[tuple[object, str]]:
    file = SourceFile(LocalFile(Path(name)), kind or name.rsplit(".", 1)[1])
    return [(parse(row.values), str(row.origin)) for row in file.rows()]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 16, 17, 33, 100])
@pytest.mark.parametrize("indent", [None, 1])
def test_an_array_may_be_cut_anywhere(write, pieces, size, indent):
    name = write("x.json", "\ufeff \n" + json.dumps(ROWS, ensure_ascii=False, indent=indent) + "\n \n")
    whole = read(name)
    assert [row for row, _place in whole] == ROWS
    pieces(size)
    assert read(name) == whole


@pytest.mark.parametrize("size", [1, 2, 5, 9, 40])
def test_lines_may_be_cut_anywhere(write, pieces, size):
    text = "\n" + "\r\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n\n{broken\n3"
    name = write("x.jsonl", "\ufeff" + text)
    whole = read(name)
    assert [row for row, _place in whole[:4]] == ROWS
    assert [row.code for row, _place in whole[4:]] == ["E-DATA-003", "E-DATA-008"]
    assert [place for _row, place in whole] == [f"x.jsonl:{line}" for line in (2, 3, 4, 5, 7, 8)]
    pieces(size)
    assert read(name) == whole


@pytest.mark.parametrize("size", [1, 4, 30])
def test_objects_over_several_lines_may_be_cut_anywhere(write, pieces, size):
    name = write("x.json", "\n".join(json.dumps(row, indent=2) for row in ROWS))
    whole = read(name)
    assert [row for row, _place in whole] == ROWS
    pieces(size)
    assert read(name) == whole


@pytest.mark.parametrize("size", [1, 3, 8, 64, 1000])
@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ('[\n{"a": 1},\n{"a": tru}\n]', "x.json:3:7", "expecting value"),
        ('[\n{"a": 1},\n{"a": "\\u12', "x.json:3:9", "escape"),
        ('[\n{"a": 1},\n{"a": "abc', "x.json:3:7", "cut off"),
        ('[\n{"a": 1}\n{"a": 2}]', "x.json:3:1", "expected , or ]"),
        ('[\n{"a": 1},\n', "x.json:3:1", "cut off"),
        ('[{"a": 1}, {"b": 2}] x', "x.json:1:22", "text after the end"),
        ('[\n{"a": 1}, {"b": 2}, {\'c\': 3}]', "x.json:2:22", "property name"),
    ],
)
def test_a_fault_is_placed_wherever_pieces_end(write, pieces, size, text, place, what):
    write("x.json", text)
    pieces(size)
    with pytest.raises(DataError, match=what) as caught:
        read("x.json")
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == ("E-DATA-003", place)


@pytest.mark.parametrize("size", [1, 3, 8, 1000])
@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.csv", "x.txt"])
def test_what_is_not_utf8_is_placed_wherever_pieces_end(write, pieces, size, name):
    lines = ['{"a": "é"}', '{"a": "ééé caf\xff"}']
    text = {"x.json": "[" + ",\n".join(lines) + "]"}.get(name, "\n".join(lines))
    write(name, text.encode().replace("\xff".encode(), b"\xe9"))
    pieces(size)
    with pytest.raises(DataError) as caught:
        read(name)
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == ("E-DATA-004", f"{name}:2")
    assert "byte 0xe9 at position 18 " in problem.what  # `{"a": "` is 7 bytes, `ééé caf` 10


def test_a_large_array_is_not_held_whole(write):
    rows = ",\n".join(json.dumps({"text": f"{i} " + "x" * 1000}) for i in range(30_000))  # 30 MB
    name = write("x.json", f"[{rows}]")
    del rows
    tracemalloc.start()
    count = sum(1 for _row in SourceFile(LocalFile(Path(name)), "json").rows())
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 30_000
    assert peak < 8_000_000  # a few blocks of 1 MB


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.txt", "x.csv"])
def test_a_row_without_end_is_refused_before_it_is_read_whole(write, monkeypatch, pieces, name):
    monkeypatch.setattr(decode, "LONGEST_ROW", 100_000)
    pieces(1000)
    head = {"x.json": '[\n{"a": 1},\n{"a": "', "x.jsonl": '{"a": 1}\n\n{"a": "'}.get(name, "a\nb\n")
    write(name, head + "x" * 10_000_000)
    tracemalloc.start()
    with pytest.raises(DataError, match="more than 100,000 bytes") as caught:
        read(name)
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == ("E-DATA-008", f"{name}:3")
    assert peak < 2_000_000


def test_lines_stay_as_they_are_until_they_are_parsed(write):
    name = write("x.jsonl", '{"a": 1}\n[1]\n{"a":\n')
    values = [row.values for row in SourceFile(LocalFile(Path(name)), "jsonl").rows()]
    assert all(type(value) is Unparsed for value in values)
    assert values[0] == b'{"a": 1}'
    sent = pickle.loads(pickle.dumps(values))  # noqa: S301 - to another process
    assert parse(sent[0]) == {"a": 1}
    assert parse(sent[1]) == Broken("E-DATA-008", "the row is not a JSON object", "[1]")
    assert parse(sent[2]).reason == "the line is not valid JSON"
    assert parse({"b": 2}) == {"b": 2}


def test_the_digest_is_that_of_the_bytes_and_of_the_kind(write, cache):
    for name in ("a.jsonl", "b.jsonl"):
        write(name, '{"a": 1}\n')
    a, b = (SourceFile(LocalFile(Path(name)), "jsonl") for name in ("a.jsonl", "b.jsonl"))
    assert a.digest() == b.digest()
    assert SourceFile(a.blob, "json").digest() != a.digest()
    before = a.digest()
    write("a.jsonl", '{"a": 2}\n')  # as long as before, within the same tick of the clock
    assert a.digest() != before


def test_a_digest_is_remembered_until_the_file_changes(write, cache, monkeypatch):
    path = Path(write("a.jsonl", '{"a": 1}\n'))
    file = SourceFile(LocalFile(path), "jsonl")
    monkeypatch.setattr("tunesmith.data.sources.digests._STILL_WARM_NS", -1)
    first = file.digest()
    opened = []
    real = Path.open

    def watched(self, *args, **keywords):
        opened.append(self.name)
        return real(self, *args, **keywords)

    monkeypatch.setattr(Path, "open", watched)
    assert file.digest() == first
    assert "a.jsonl" not in opened
    (memo,) = (cache / "data" / "digests").iterdir()
    memo.write_text("{")  # damaged
    assert file.digest() == first
    assert "a.jsonl" in opened
    times = path.stat()
    path.write_text('{"a": 2}\n')
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # the same size and time; only ctime tells
    assert file.digest() != first
