"""A preparation that is killed, fails or is asked to stop goes on where it was, and gives the same bytes."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tunesmith.config.data import DataConfig
from tunesmith.config.template import TemplateConfig
from tunesmith.core.errors import DataError, MachineError, PreemptedError, Problem, StorageError
from tunesmith.data import Datasets, build_datasets, journal
from tunesmith.data import prepare as prepare_module
from tunesmith.data.cache import cached, entries
from tunesmith.data.store import GrowingFiles
from tunesmith.render import Renderer, make_renderer

forks = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
WORKERS = [0, pytest.param(2, marks=[forks, pytest.mark.slow])]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An entry of the journal after every block."""
    monkeypatch.setenv("TUNESMITH_DATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(journal, "EVERY", 0.0)
    monkeypatch.setattr(journal, "SHARE", 1e9)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets of 300 chats: with faults of several kinds, with weights, and a sample of rows."""
    random = Random(1)
    words = ["red", "blue", "3 + 4", "\n", "é", "what", "<think>", "<|im_end|>", "?"]
    place = tmp_path_factory.mktemp("rows")
    for name, weighted in (("x", False), ("w", True)):
        lines = []
        for number in range(300):
            turns = []
            for _ in range(random.randint(1, 3)):
                for who in ("human", "gpt"):
                    value = " ".join(random.choices(words, k=random.randint(1, 12))).strip() or "x"
                    turns.append({"from": who, "value": value})
                    if weighted and number > 100 and who == "gpt":
                        turns[-1]["weight"] = random.choice([0, 0.5, 1])  # type: ignore[assignment]
            if number % 50 == 7:
                turns.pop()
            row = {"conversations": turns, **({"tail": 1} if number == 290 else {})}
            lines.append(json.dumps(row) if number % 90 != 13 else '{"broken \\ud800')
        (place / f"{name}.jsonl").write_text("\n".join(lines))
    info = {
        "x": {"file_name": "x.jsonl", "formatting": "sharegpt"},
        "w": {"file_name": "w.jsonl", "formatting": "sharegpt"},
        "s": {"file_name": "x.jsonl", "formatting": "sharegpt", "num_samples": 250},
    }
    (place / "dataset_info.json").write_text(json.dumps(info))
    return place


def make(tiny_model: Path) -> Renderer:
    from transformers import AutoTokenizer

    return make_renderer(TemplateConfig(), AutoTokenizer.from_pretrained(tiny_model))


def build(
    folder: Path,
    renderer: Renderer,
    name: str = "x",
    workers: int = 0,
    on_progress: Callable[[int, int | None], None] | None = None,
    **settings: Any,
) -> Datasets:
    config = DataConfig(
        dataset=(name,),
        dataset_dir=str(folder),
        on_bad_row="skip",
        max_bad_rows=99,
        cutoff_len=999,
        preprocessing_batch_size=17,
        preprocessing_num_workers=workers,
        **settings,
    )
    return build_datasets(config, renderer, stage="sft", seed=1, on_progress=on_progress)


def files_of(cache: Path) -> dict[str, bytes]:
    """The content of the one entry, and that nothing else is there."""
    (entry,) = [path for path in (cache / "prepared").iterdir() if path.is_dir()]
    return {path.name: path.read_bytes() for path in entry.iterdir()}


def stop_after(rows: int, error: BaseException) -> Callable[[int, int | None], None]:
    def look(done: int, total: int | None) -> None:
        if done >= rows:
            raise error

    return look


def asked_to_stop() -> PreemptedError:
    return PreemptedError(Problem("E-TRAIN-094", "asked to stop"))


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("name", ["x", "w", "s"])
def test_a_preparation_that_is_stopped_goes_on_behind_what_was_done(
    name: str, workers: int, folder: Path, tiny_model: Path, own_cache: Path, monkeypatch: Any, caplog: Any
) -> None:
    before = _children()
    whole = build(folder, make(tiny_model), name)
    expected = files_of(own_cache)
    monkeypatch.setenv("TUNESMITH_DATA_CACHE", str(own_cache / "other"))
    encoded: list[int] = []
    places = [17, 120, 200]
    for rows, error in zip(places, (KeyboardInterrupt(), asked_to_stop(), KeyboardInterrupt()), strict=True):
        with pytest.raises((KeyboardInterrupt, PreemptedError)):
            build(folder, make(tiny_model), name, workers, stop_after(rows, error))
        assert [entry.finished for entry in entries()] == [False]
    with caplog.at_level(logging.INFO, "tunesmith"):
        found = build(folder, make(tiny_model), name, workers, lambda done, _total: encoded.append(done))
    assert files_of(own_cache / "other") == expected
    assert found.report.to_dict() == whole.report.to_dict()
    assert len(encoded) <= (300 - places[-1]) // 17 + 1  # blocks; the others were done before
    assert re.search(r"preparing \S+: 2\d\d of about \d+ rows were done before", caplog.text)
    assert not workers or _ended(before)


def _children() -> set[str]:
    """Processes that this one has started and that run."""
    found = set()
    for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        with suppress(OSError):
            if "Z" not in Path(f"/proc/{child}/stat").read_text().rpartition(")")[2][:3]:
                found.add(child)
    return found


def _ended(before: set[str]) -> bool:
    """Whether no more run than before."""
    for _ in range(100):
        if not _children() - before:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("point", range(8))
def test_a_crash_at_any_point_of_writing_loses_no_byte(
    point: int, folder: Path, tiny_model: Path, own_cache: Path, monkeypatch: Any
) -> None:
    """Every call that changes the disk is counted, and one of them, drawn by chance, writes half and fails."""
    build(folder, make(tiny_model), "w")
    expected = files_of(own_cache)
    monkeypatch.setenv("TUNESMITH_DATA_CACHE", str(own_cache / "other"))
    random = Random(point)
    with monkeypatch.context() as patch:
        left = [random.randint(1, 110)]
        _fail_after(patch, left)
        try:
            build(folder, make(tiny_model), "w")
        except (StorageError, OSError):
            assert left[0] <= 0
    build(folder, make(tiny_model), "w")
    assert files_of(own_cache / "other") == expected


def _fail_after(patch: pytest.MonkeyPatch, left: list[int]) -> None:
    append, fsync, replace = GrowingFiles.append, os.fsync, os.replace

    def counted(real: Callable[..., Any], half: Callable[..., Any] | None = None) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                if half is not None:
                    half(*arguments)
                raise OSError(28, "No space left on device")
            return real(*arguments)

        return call

    def torn(files: GrowingFiles, name: str, array: Any) -> None:
        append(files, name, array[: len(array) // 2])
        files.sync()

    patch.setattr(GrowingFiles, "append", counted(append, torn))
    patch.setattr(os, "fsync", counted(fsync))
    patch.setattr(os, "replace", counted(replace))


@pytest.mark.parametrize("again", [False, True])
def test_a_crash_before_the_rename_costs_nothing(
    again: bool, folder: Path, tiny_model: Path, own_cache: Path, monkeypatch: Any
) -> None:
    """`again`: what is replaced was removed already."""
    build(folder, make(tiny_model), "s")
    expected = files_of(own_cache)
    if not again:
        monkeypatch.setenv("TUNESMITH_DATA_CACHE", str(own_cache / "other"))

    def crash(_path: Path, _target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", crash)
        with pytest.raises(KeyboardInterrupt):
            build(folder, make(tiny_model), "s", overwrite_cache=again)
    rows: list[int] = []
    for _ in range(2):
        build(folder, make(tiny_model), "s", on_progress=lambda done, _total: rows.append(done))
    assert rows == []  # all were done, and then it was found in the cache
    assert files_of(own_cache if again else own_cache / "other") == expected


@pytest.mark.slow
@forks
@pytest.mark.parametrize("workers", [0, 2])
def test_kills_at_random_times_lose_no_byte(
    workers: int, folder: Path, tiny_model: Path, own_cache: Path, monkeypatch: Any
) -> None:
    build(folder, make(tiny_model), "w")
    expected = files_of(own_cache)
    monkeypatch.setenv("TUNESMITH_DATA_CACHE", str(own_cache / "other"))
    random, renderer, killed = Random(workers), make(tiny_model), 0
    for _ in range(12):
        started = own_cache / "started"
        started.unlink(missing_ok=True)

        def parent(started: Path = started) -> None:
            started.touch()
            build(folder, renderer, "w", workers, lambda _done, _total: time.sleep(0.01))

        child = multiprocessing.get_context("fork").Process(target=parent)
        child.start()
        while not started.exists():
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.15))
        child.kill()
        child.join()
        killed += child.exitcode == -signal.SIGKILL
    assert killed >= 2
    build(folder, make(tiny_model), "w", workers)
    assert files_of(own_cache / "other") == expected


@forks
def test_who_is_killed_leaves_no_process_and_no_lock_behind(tmp_path: Path) -> None:
    """Workers are forked, and hold the parent's lock as long as they live."""
    from filelock import FileLock

    from tunesmith.data.workers import map_in_order

    def work(number: int) -> int:
        (tmp_path / f"worker-{os.getpid()}").touch()
        time.sleep(0.05)
        return number

    def parent() -> None:
        with FileLock(tmp_path / "lock"):
            list(map_in_order(work, range(10_000), 2))

    child = multiprocessing.get_context("fork").Process(target=parent)
    child.start()
    end = time.monotonic() + 20
    while len(workers := [int(path.name[7:]) for path in tmp_path.glob("worker-*")]) < 2:
        assert time.monotonic() < end
        time.sleep(0.05)
    child.kill()
    child.join()
    FileLock(tmp_path / "lock").acquire(timeout=10).lock.release()
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < end, "a worker outlives its parent"
        time.sleep(0.05)


@forks
def test_workers_leave_signals_to_their_parent(tmp_path: Path) -> None:
    """Of Ctrl-C they hear nothing; asked to end with all processes of a job, they give the parent time."""
    from tunesmith.data.workers import map_in_order

    def work(number: int) -> tuple[int, int]:
        if number == 1:
            for which in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
                os.kill(os.getpid(), which)
            time.sleep(0.2)
        return number, os.getpgid(0)

    found = list(map_in_order(work, range(4), 1))
    assert [number for number, _group in found] == [0, 1, 2, 3]
    assert os.getpgid(0) not in {group for _number, group in found}


@forks
def test_rows_before_a_killed_worker_are_kept(
    folder: Path, tiny_model: Path, own_cache: Path, monkeypatch: Any
) -> None:
    build(folder, make(tiny_model))
    expected = files_of(own_cache)
    monkeypatch.setenv("TUNESMITH_DATA_CACHE", str(own_cache / "other"))

    def kill_one(done: int, _total: int | None) -> None:
        if done >= 100:
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            os.kill(int(children[-1]), signal.SIGKILL)
            time.sleep(0.3)

    with pytest.raises(MachineError, match="E-DATA-110"):
        build(folder, make(tiny_model), "x", 2, kill_one)
    rows: list[int] = []
    build(folder, make(tiny_model), "x", 0, lambda done, _total: rows.append(done))
    assert rows[0] > 100
    assert files_of(own_cache / "other") == expected


def test_a_fault_of_a_quick_way_is_not_forgotten(
    folder: Path, tiny_model: Path, own_cache: Path, monkeypatch: Any
) -> None:
    """Killed after the quick ways were given up, the next process does not begin with them again."""
    pytest.importorskip("kitoken", reason="kitoken has no wheel for this machine")
    build(folder, make(tiny_model))
    expected = files_of(own_cache)
    monkeypatch.setenv("TUNESMITH_DATA_CACHE", str(own_cache / "other"))
    monkeypatch.setattr(prepare_module, "MANY_BYTES", 1)
    renderer = make(tiny_model)
    honest = renderer.speed_up

    def lying() -> None:
        honest()
        fast: Any = renderer._batches._fast
        encode, calls = fast._encode, []
        fast._encode = lambda text, special: [
            *encode(text, special),
            *([5] if calls.append(1) or len(calls) > 99 else []),
        ]

    monkeypatch.setattr(renderer, "speed_up", lying)
    before: list[int] = []

    def stop(done: int, _total: int | None) -> None:
        if before and done < before[-1]:
            raise KeyboardInterrupt  # the first block of the long way
        before.append(done)

    with pytest.raises(KeyboardInterrupt):
        build(folder, renderer, on_progress=stop)
    fresh = make(tiny_model)
    found = build(folder, fresh)
    assert found.report.encoders == ["tokenizers"]
    assert any("kitoken's ids" in notice for notice in fresh.notices)
    assert files_of(own_cache / "other") == expected


def test_what_another_encoder_made_is_made_anew(folder: Path, tiny_model: Path, monkeypatch: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(folder, make(tiny_model), on_progress=stop_after(100, KeyboardInterrupt()))
    monkeypatch.setattr(Renderer, "encoder_name", property(lambda _self: "another 2.0"))
    rows: list[int] = []
    found = build(folder, make(tiny_model), on_progress=lambda done, _total: rows.append(done))
    assert rows[0] == 17
    assert found.report.encoders == ["another 2.0"]


@pytest.mark.parametrize("harm", ["a file is shorter than told", "a file is gone", "the journal is torn"])
def test_a_draft_that_does_not_hold_what_it_tells_is_made_anew(
    harm: str, folder: Path, tiny_model: Path, own_cache: Path, monkeypatch: Any
) -> None:
    build(folder, make(tiny_model))
    expected = files_of(own_cache)
    monkeypatch.setenv("TUNESMITH_DATA_CACHE", str(own_cache / "other"))
    with pytest.raises(KeyboardInterrupt):
        build(folder, make(tiny_model), on_progress=stop_after(100, KeyboardInterrupt()))
    (draft,) = [entry.folder for entry in entries()]
    if harm == "the journal is torn":
        (draft / ".journal.json").write_text((draft / ".journal.json").read_text()[:-9])
    elif harm == "a file is gone":
        (draft / "trained.b1").unlink()
    else:
        os.truncate(draft / "ids.i32", 8)
    rows: list[int] = []
    build(folder, make(tiny_model), on_progress=lambda done, _total: rows.append(done))
    assert rows[0] == 17
    assert files_of(own_cache / "other") == expected


def test_drafts_that_are_of_no_use_go(own_cache: Path) -> None:
    """After bad data, which makes another entry once it is mended; after a week; and where all is to be made anew."""

    def fail(error: BaseException) -> Callable[[Path], None]:
        def make(folder: Path) -> None:
            (folder / "x").write_text("half")
            raise error

        return make

    def whole(folder: Path) -> None:
        left.append((folder / "x").exists())
        (folder / "x").write_text("whole")

    left: list[bool] = []
    with pytest.raises(DataError):
        cached({"a": 1}, "d", fail(DataError(Problem("E-DATA-019", "bad"))))
    assert list(entries()) == []
    for number in (2, 3):
        with pytest.raises(KeyboardInterrupt):
            cached({"a": number}, "d", fail(KeyboardInterrupt()))
    first, second = entries()
    long_ago = time.time() - 8 * 86400
    for file in second.folder.iterdir():
        os.utime(file, (long_ago, long_ago))
    cached({"a": 4}, "d", whole)
    assert {entry.folder for entry in entries() if not entry.finished} == {first.folder}
    cached({"a": 3}, "d", whole, rebuild=True)
    cached({"a": 2}, "d", whole, rebuild=True)
    assert left == [False, False, False]
    with pytest.raises(KeyboardInterrupt):
        cached({"a": 2}, "d", fail(KeyboardInterrupt()), rebuild=True)
    cached({"a": 2}, "d", whole, rebuild=True)
    assert left == [False, False, False, True]


def test_tokenized_path_goes_on_too(folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    kept = str(tmp_path / "kept")
    with pytest.raises(KeyboardInterrupt):
        build(folder, make(tiny_model), on_progress=stop_after(100, KeyboardInterrupt()), tokenized_path=kept)
    rows: list[int] = []
    build(folder, make(tiny_model), on_progress=lambda done, _total: rows.append(done), tokenized_path=kept)
    assert rows[0] > 100
    assert [path.name for path in Path(kept).iterdir() if path.is_dir()] == ["train-0-x"]
