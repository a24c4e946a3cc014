"""Files to rows: what is read, and the place that each row says it came from."""

from __future__ import annotations

import csv
import gzip
import json
import os
import time
from pathlib import Path

import pytest

from tunesmith.core.errors import DataError, MissingInputError
from tunesmith.data.rows import Broken
from tunesmith.data.sources import SOURCES
from tunesmith.data.sources.local import local_files, read_path

ROWS = [{"a": "1"}, {"a": "zwei\n2"}, {"a": "三"}]


def read(name: str) -> list[tuple[object, str]]:
    return [(row.values, str(row.origin)) for row in read_path(Path(name))]


def test_every_source_of_the_table_can_be_imported():
    assert all(callable(SOURCES.get(name)) for name in SOURCES)


def test_json_rows_carry_the_line_where_they_begin(write):
    name = write("x.json", '[\n  {"a": "1"},\n  {\n    "a": "zwei\\n2"\n  },\n\n  {"a": "三"}\n]\n')
    assert read(name) == list(zip(ROWS, ["x.json:2", "x.json:3", "x.json:7"], strict=True))


def test_rows_on_one_line_are_told_by_their_number(write):
    name = write("x.json", json.dumps(ROWS))
    assert [place for _row, place in read(name)] == ["x.json, row 0", "x.json, row 1", "x.json, row 2"]


@pytest.mark.parametrize("name", ["x.jsonl", "x.ndjson", "x.json"])
def test_json_lines_are_read_whatever_the_name(write, name):
    write(name, '\n{"a": "1"}\r\n\n{"a": "zwei\\n2"}\r\n  \n{"a": "三"}')
    assert read(name) == list(zip(ROWS, [f"{name}:2", f"{name}:4", f"{name}:6"], strict=True))


def test_an_array_named_jsonl_is_read(write):
    assert [row for row, _place in read(write("x.jsonl", json.dumps(ROWS)))] == ROWS


def test_objects_over_several_lines_one_after_another(write):
    name = write("x.json", '{\n "a": 1\n}\n{\n "a": 2\n}\n')
    assert read(name) == [({"a": 1}, "x.json:1"), ({"a": 2}, "x.json:4")]


def test_a_byte_order_mark_is_left_out(write):
    for name in ("x.json", "x.jsonl", "x.csv", "x.txt"):
        write(name, b"\xef\xbb\xbf" + {"csv": b"text\nhi\n", "txt": b"hi\n"}.get(name[2:], b'{"text": "hi"}\n'))
        assert [row for row, _place in read(name)] == [{"text": "hi"}]


def test_line_separators_of_unicode_do_not_end_a_line(write):
    rows = [{"text": "one\u2028still one\x85\x0b"}, {"text": "two"}]
    write("x.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    write("x.txt", "one\u2028still one\x85\x0b\ntwo")
    write("x.csv", "text\none\u2028still one\x85\x0b\ntwo")
    for name in ("x.jsonl", "x.txt", "x.csv"):
        assert [row for row, _place in read(name)] == rows


def test_broken_lines_are_rows_too_and_reading_goes_on(write):
    name = write("x.jsonl", '{"a": 1}\n{"a": \n[1]\n{"a": 2}\n')
    rows = read(name)
    assert [place for _row, place in rows] == ["x.jsonl:1", "x.jsonl:2", "x.jsonl:3", "x.jsonl:4"]
    assert [row.code if isinstance(row, Broken) else row for row, _place in rows] == [
        {"a": 1},
        "E-DATA-003",
        "E-DATA-008",
        {"a": 2},
    ]


def test_csv_rows_carry_the_line_where_they_begin(write):
    name = write("x.csv", 'a,b\r\n1,"two\nlines"\r\n\r\n"3, ""three""",4\r\n')
    assert read(name) == [({"a": "1", "b": "two\nlines"}, "x.csv:2"), ({"a": '3, "three"', "b": "4"}, "x.csv:5")]


def test_a_field_longer_than_the_csv_modules_limit(write):
    assert len(read(write("x.csv", "a\n" + "x" * 200_000))[0][0]["a"]) == 200_000
    csv.field_size_limit(131_072)


def test_tsv(write):
    assert read(write("x.tsv", "a\tb\n1\t2,3\n")) == [({"a": "1", "b": "2,3"}, "x.tsv:2")]


def test_parquet_and_arrow(write, tmp_path):
    import pyarrow
    from pyarrow import ipc, parquet

    write("keep.txt", "x")
    table = pyarrow.Table.from_pylist(ROWS)
    parquet.write_table(table, "x.parquet")
    with ipc.new_file("file.arrow", table.schema) as writer:
        writer.write_table(table)
    with ipc.new_stream("stream.arrow", table.schema) as writer:
        writer.write_table(table)
    for name in ("x.parquet", "file.arrow", "stream.arrow"):
        assert read(name) == [(row, f"{name}, row {index}") for index, row in enumerate(ROWS)]


def test_a_text_file_is_one_row_per_line(write):
    assert read(write("x.txt", "one\n\n  \n two \n")) == [({"text": "one"}, "x.txt:1"), ({"text": " two "}, "x.txt:4")]


def test_a_folder_is_its_files_in_order_without_hidden_ones(write):
    for name in ("d/b.jsonl", "d/a.jsonl", "d/.c.jsonl", "d/sub/x.csv"):
        write(name, [{"name": name}])
    assert [row for row, _place in read("d")] == [{"name": "d/a.jsonl"}, {"name": "d/b.jsonl"}]


def test_a_pattern_is_the_files_that_match_it_in_order(write):
    for name in ("d/b.jsonl", "d/a.jsonl", "d/.c.jsonl", "d/sub/x.jsonl", "d/sub/deep/y.jsonl", "d/z.csv"):
        write(name, json.dumps({"name": name}))
    assert [row["name"] for row, _place in read("d/*.jsonl")] == ["d/a.jsonl", "d/b.jsonl"]
    assert [row["name"] for row, _place in read("d/**/*.jsonl")] == [
        "d/a.jsonl",
        "d/b.jsonl",
        "d/sub/deep/y.jsonl",
        "d/sub/x.jsonl",
    ]
    assert [row["name"] for row, _place in read("d/[ab].jsonl")] == ["d/a.jsonl", "d/b.jsonl"]
    with pytest.raises(MissingInputError, match="no file matches"):
        read("d/*.json")


def test_a_file_that_looks_like_a_pattern_is_a_file(write):
    write("a[1].jsonl", '{"a": 1}\n')
    write("a1.jsonl", '{"a": 2}\n')
    assert read("a[1].jsonl") == [({"a": 1}, "a[1].jsonl:1")]


def test_a_folder_of_packed_and_plain_files_is_one_dataset(write):
    write("d/a.jsonl", '{"a": 1}\n')
    write("d/b.jsonl.gz", gzip.compress(b'{"a": 2}\n'))
    assert [row for row, _place in read("d")] == [{"a": 1}, {"a": 2}]


def test_all_files_of_a_folder_that_cannot_be_read_are_told(write):
    write("d/a.jsonl", "")
    write("d/b.jsonl", '{"a": 1}\n')
    os.mkfifo("d/c.jsonl")
    with pytest.raises(DataError) as caught:
        read("d")
    assert [problem.code for problem in caught.value.problems] == ["E-DATA-001", "E-DATA-025"]


def test_a_folder_of_mixed_files_names_the_odd_ones(write):
    for name in ("a.jsonl", "b.jsonl", "README.md"):
        write(f"d/{name}", "x")
    with pytest.raises(DataError, match=r"README\.md") as caught:
        local_files(Path("d"))
    assert caught.value.code == "E-DATA-026"


def test_a_missing_file_has_its_likeliest_name(write):
    write("train_data.json", "[]")
    with pytest.raises(MissingInputError, match=r"train_data\.json") as caught:
        read("train_dta.json")
    assert caught.value.exit_code == 66


def test_a_pipe_is_refused_and_not_waited_for(write, tmp_path):
    write("x.txt", "x")
    os.mkfifo("pipe.jsonl")
    (tmp_path / "link.jsonl").symlink_to("nowhere.jsonl")
    with pytest.raises(DataError, match="not a regular file"):
        read("pipe.jsonl")
    with pytest.raises(DataError, match="points to nothing"):
        read("link.jsonl")


def test_five_thousand_rows_load_fast(write):
    rows = [{"instruction": f"say {i}", "input": "", "output": "word " * 60} for i in range(5000)]
    name = write("x.json", json.dumps(rows, indent=2))
    started = time.perf_counter()
    places = [place for _row, place in read(name)]
    assert places[-1] == f"x.json:{2 + 4999 * 5}"  # five lines a row, the first in line 2
    assert time.perf_counter() - started < 3  # ten times what it takes on an idle core
