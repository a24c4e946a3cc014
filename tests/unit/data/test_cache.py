"""Prepared data is kept and found again, never stale, and safe when two runs want it at once."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from tunesmith.config.data import DataConfig
from tunesmith.core.errors import DataError, StorageError
from tunesmith.data import build_datasets
from tunesmith.data.cache import cached, code_digest, entries, kept_in, remove


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNESMITH_DATA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def row(answer: str) -> dict[str, str]:
    return {"instruction": "u", "output": answer}


def build(renderer: Any, name: str, **settings: Any) -> Any:
    return build_datasets(DataConfig(dataset=(name,), **settings), renderer, stage="sft", seed=1)


def tokens(datasets: Any) -> list[list[int]]:
    return [sample["input_ids"].tolist() for sample in datasets.train]


def test_the_second_run_encodes_nothing_and_has_the_same(write: Any, renderer: Any) -> None:
    name = write("x.jsonl", [*map(row, "abc"), {"instruction": "u", "output": ""}])
    first = build(renderer, name, on_bad_row="skip", max_bad_rows=5)
    made = len(renderer.batches)
    second = build(renderer, name, on_bad_row="skip", max_bad_rows=5)
    assert len(renderer.batches) == made
    assert tokens(second) == tokens(first)
    assert second.report.to_dict() == first.report.to_dict()
    assert [str(second.train.origin(index)) for index in range(3)] == ["x.jsonl:1", "x.jsonl:2", "x.jsonl:3"]
    with pytest.raises(DataError, match=r"an empty answer.*1 of 4 rows"):  # the rules for bad rows are not cached
        build(renderer, name)
    build(renderer, name, on_bad_row="skip", max_bad_rows=5, overwrite_cache=True)
    assert len(renderer.batches) == 2 * made


@pytest.mark.parametrize("what", ["a byte", "the template", "a column", "the number of rows", "trust"])
def test_what_changes_samples_makes_them_anew(what: str, write: Any, renderer: Any, monkeypatch: Any) -> None:
    write("data/x.jsonl", [{**row("a"), "other": "b"}, {**row("b"), "other": "c"}])
    entry: dict[str, Any] = {"file_name": "x.jsonl", "columns": {"prompt": "instruction", "response": "output"}}
    write("data/dataset_info.json", {"d": entry})
    first, settings = tokens(build(renderer, "d")), {}
    made = len(renderer.batches)
    if what == "a byte":
        file = Path("data/x.jsonl")
        state = file.stat()
        file.write_bytes(file.read_bytes().replace(b'"output": "a"', b'"output": "z"'))
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))  # the same size and time
    elif what == "the template":
        renderer.made += 1
    elif what == "a column":
        entry["columns"]["response"] = "other"
    elif what == "trust":
        entry["trusted_markup"] = True
    else:
        settings = {"max_samples": 1}
    write("data/dataset_info.json", {"d": entry})
    again = tokens(build(renderer, "d", **settings))
    assert len(renderer.batches) > made
    assert (again == first) is (what in ("the template", "trust"))


def test_what_does_not_change_samples_is_not_prepared_again(write: Any, renderer: Any) -> None:
    name = write("x.jsonl", [row(answer * 5) for answer in "abcdefgh"])
    build(renderer, name)
    made = len(renderer.batches)
    for settings in ({"cutoff_len": 6}, {"val_size": 2}, {"packing": True}, {"preprocessing_batch_size": 3}):
        build(renderer, name, **settings)
    assert len(renderer.batches) == made


def test_the_code_that_makes_samples_is_part_of_the_key() -> None:
    assert len(code_digest()) == 32
    assert "code" in json.loads(json.dumps({"code": code_digest()}))


def test_two_runs_at_once_make_it_once(tmp_path: Path) -> None:
    made: list[int] = []

    def make(folder: Path) -> None:
        made.append(1)
        threading.Event().wait(0.2)
        (folder / "x").write_text("whole")

    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(cached({"a": 1}, "d", make))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert {(path / "x").read_text() for path in found} == {"whole"}


def whole(folder: Path) -> None:
    (folder / "x").write_text("whole")


def test_a_failed_or_torn_one_is_not_taken(own_cache: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "x").write_text("half")
        raise KeyError

    with pytest.raises(KeyError):
        cached({"a": 1}, "d", fail)
    assert [entry.finished for entry in entries()] == [False]
    folder = cached({"a": 1}, "d", whole)
    assert [entry.folder for entry in entries()] == [folder]
    (folder / "x").write_text("who")  # a torn disk
    assert (cached({"a": 1}, "d", whole) / "x").read_text() == "whole"
    assert [path.name for path in (own_cache / "prepared").iterdir() if not path.name.endswith(".lock")] == [
        folder.name
    ]


def test_a_full_disk_is_said_as_such() -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="No space left") as caught:
        cached({"a": 1}, "d", full)
    assert "TUNESMITH_DATA_CACHE" in str(caught.value)


def test_entries_are_listed_and_removed() -> None:
    for number in range(2):
        cached({"a": number}, f"d{number}", whole)
    found = list(entries())
    assert {entry.name for entry in found} == {"d0", "d1"}
    assert {entry.bytes for entry in found} == {5}
    remove(found[0])
    assert [entry.key for entry in entries()] == [found[1].key]


def test_tokenized_path_keeps_and_verifies(write: Any, renderer: Any, tmp_path: Path) -> None:
    name = write("x.jsonl", [row("a"), row("b")])
    kept = str(tmp_path / "kept")
    first = build(renderer, name, tokenized_path=kept)
    made = len(renderer.batches)
    assert tokens(build(renderer, name, tokenized_path=kept)) == tokens(first)
    assert len(renderer.batches) == made
    assert list(entries()) == []  # it is there in place of the cache
    renderer.made += 1
    with pytest.raises(DataError, match=r"E-DATA-112.*renderer changed"):
        build(renderer, name, tokenized_path=kept)
    build(renderer, name, tokenized_path=kept, overwrite_cache=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="something else"):
        kept_in(other, {"a": 1}, "d", lambda folder: None)
