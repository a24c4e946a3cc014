"""Training data as a stream: the samples of a whole dataset, in windows, from any place on."""

from __future__ import annotations

import json
import logging
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunesmith.config.data import DataConfig
from tunesmith.core.errors import DataError, UsageError
from tunesmith.data import build_datasets
from tunesmith.data.pack import PackedDataset
from tunesmith.data.streaming.build import build_stream
from tunesmith.data.streaming.samples import SampleStream, Window
from tunesmith.render.errors import QuickWayFault

WORDS = ["a", "bb", "ccc", "dddd", "eeeee"]


def rows(count: int, mark: str = "") -> list[dict[str, str]]:
    """Chats of different lengths, each with its number in it."""
    return [{"instruction": f"{mark}{n}", "output": f"{mark}{n} {WORDS[n % 5] * (n % 3 + 1)}"} for n in range(count)]


def stream(renderer: Any, *dataset: Any, position: Any = None, stage: str = "sft", **settings: Any) -> Any:
    settings = {"buffer_size": 8, "preprocessing_num_workers": 0, "streaming": True, **settings}
    return build_stream(DataConfig(dataset=dataset, **settings), renderer, stage=stage, seed=3, position=position)


def train(renderer: Any, *dataset: Any, **settings: Any) -> SampleStream:
    found = stream(renderer, *dataset, **settings).train
    assert isinstance(found, SampleStream)
    return found


def texts(samples: Any) -> list[bytes]:
    """Every sequence, from within packs as well."""
    pieces = samples.pieces if isinstance(samples, PackedDataset) else samples
    return [bytes(sample["input_ids"].tolist()) for sample in pieces]


def epoch(found: SampleStream, number: int = 0) -> list[Window]:
    windows = []
    for window in found.windows():
        if window.epoch > number:
            return windows
        if window.epoch == number:
            windows.append(window)
    raise AssertionError("a stream has no end")


def contents(windows: list[Window]) -> list[bytes]:
    return [text for window in windows for text in texts(window.samples)]


def test_an_epoch_holds_the_samples_of_the_whole_dataset_in_order(write, renderer):
    file = write("x.jsonl", rows(30))
    whole = build_datasets(DataConfig(dataset=(file,)), renderer, stage="sft", seed=3).train
    found = train(renderer, file)
    windows = epoch(found)
    assert [len(window.samples) for window in windows] == [8, 8, 8, 6]
    assert contents(windows) == texts(whole)
    assert contents(epoch(train(renderer, file), 1)) == texts(whole), "each epoch reads all of it again"
    masks = [sample["trained"].tolist() for window in windows for sample in window.samples]
    assert masks == [sample["trained"].tolist() for sample in whole]
    assert [str(window.samples.origin(0)) for window in windows] == [f"x.jsonl:{line}" for line in (1, 9, 17, 25)]


@pytest.mark.parametrize("name", ["x.json", "x.csv", "x.parquet", "x.jsonl.gz"])
def test_files_of_every_kind_go_on_where_they_were(write, renderer, tmp_path, name):
    import gzip

    import pyarrow as pa
    from pyarrow import parquet

    made = rows(30)
    if name.endswith(".gz"):
        write(name, gzip.compress("".join(json.dumps(row) + "\n" for row in made).encode()))
    elif name.endswith(".csv"):
        write(name, "instruction,output\n" + "".join(f"{row['instruction']},{row['output']}\n" for row in made))
    elif name.endswith(".parquet"):
        write(name, b"")
        parquet.write_table(pa.Table.from_pylist(made), tmp_path / name, row_group_size=7)
    else:
        write(name, made)
    windows = list(islice(train(renderer, name).windows(), 6))
    assert contents(windows[:4]) == [b"%s\0%s\0" % (r["instruction"].encode(), r["output"].encode()) for r in made]
    for number in (1, 3, 4):
        assert_goes_on(renderer, windows, number, name)


def saved(found: SampleStream, window: Window) -> dict[str, Any]:
    """What a checkpoint keeps of a stream."""
    content = {"key": found.key, "files": found.files, "window": window.state}
    loaded: dict[str, Any] = json.loads(json.dumps(content))
    return loaded


def assert_goes_on(renderer: Any, windows: list[Window], number: int, *dataset: Any, **settings: Any) -> None:
    """A stream from the state of window `number` on gives that window and the ones behind it."""
    position = saved(train(renderer, *dataset, **settings), windows[number])
    again = list(islice(train(renderer, *dataset, position=position, **settings).windows(), len(windows) - number))
    for one, other in zip(again, windows[number:], strict=True):
        assert (one.epoch, one.number, one.state) == (other.epoch, other.number, other.state)
        assert texts(one.samples) == texts(other.samples)
        if isinstance(one.samples, PackedDataset):
            assert one.samples.bounds.tolist() == other.samples.bounds.tolist()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"packing": True, "cutoff_len": 60},
        {"mix_strategy": "interleave_over", "interleave_probs": (0.3, 0.7), "max_samples": 11},
        {"val_size": 5},
        {"on_too_long": "split", "cutoff_len": 12},
    ],
)
def test_a_stream_goes_on_in_any_window(write, renderer, settings):
    files = [write("x.jsonl", rows(20)), write("y.json", rows(13, "y"))]
    windows = list(islice(train(renderer, *files, **settings).windows(), 9))
    assert {window.epoch for window in windows} >= {0, 1}
    for number in range(1, 9):
        assert_goes_on(renderer, windows, number, *files, **settings)


def test_processes_give_what_one_gives(write, renderer):
    files = [write("x.jsonl", rows(50)), write("y.jsonl", rows(23, "y"))]
    keys = {"packing": True, "cutoff_len": 50, "preprocessing_batch_size": 3, "mix_strategy": "interleave_once"}
    alone = list(islice(train(renderer, *files, **keys, preprocessing_num_workers=0).windows(), 12))
    for workers in (1, 4):
        found = train(renderer, *files, **keys, preprocessing_num_workers=workers)
        for one, other in zip(islice(found.windows(), 12), alone, strict=True):
            assert texts(one.samples) == texts(other.samples)
            assert one.samples.bounds.tolist() == other.samples.bounds.tolist()
            assert one.state == other.state


def test_packs_hold_every_sample_of_a_window_once(write, renderer):
    file = write("x.jsonl", rows(64))
    found = train(renderer, file, buffer_size=32, packing=True, cutoff_len=64)
    for number in (0, 1):
        windows = epoch(train(renderer, file, buffer_size=32, packing=True, cutoff_len=64), number)
        assert Counter(contents(windows)) == Counter(contents(epoch(train(renderer, file, buffer_size=64))))
        for window in windows:
            assert isinstance(window.samples, PackedDataset)
            assert window.samples.lengths.max() <= 64
    first, second = epoch(found, 0), epoch(train(renderer, file, buffer_size=32, packing=True, cutoff_len=64), 1)
    assert texts(first[0].samples) != texts(second[0].samples), "packs are drawn anew in each epoch"


def test_documents_are_cut_into_blocks(write, renderer):
    file = write("x.txt", "\n".join(f"document {number} " + "x" * number for number in range(20)))
    windows = epoch(train(renderer, file, stage="pt", cutoff_len=40))
    for window in windows:
        assert set(window.samples.lengths[:-1].tolist()) == {40}
    joined = b"".join(bytes(sample["input_ids"].tolist()) for window in windows for sample in window.samples)
    assert joined == b"".join(f"document {number} ".encode() + b"x" * number + b"\0" for number in range(20))


# --- what is held out ---


@pytest.mark.parametrize("settings", [{}, {"mix_strategy": "interleave_over"}])
def test_val_size_holds_rows_of_the_beginning_out_of_every_epoch(write, renderer, settings):
    files = [write("x.jsonl", rows(30)), write("y.jsonl", rows(7, "y"))]
    found = stream(renderer, *files, val_size=5, **settings)
    held = set(texts(found.eval["validation"]))
    assert len(held) == 5
    for number in (0, 1):
        trained = contents(epoch(train(renderer, *files, val_size=5, **settings), number))
        assert not held & set(trained)
        assert len(set(trained)) == 37 - 5
    assert texts(stream(renderer, *files, val_size=5, **settings).eval["validation"]) == texts(found.eval["validation"])


def test_val_size_leaves_something_to_train_on(write, renderer):
    file = write("x.jsonl", rows(5))
    with pytest.raises(UsageError, match="leaves none for training") as caught:
        stream(renderer, file, val_size=5)
    assert caught.value.code == "E-DATA-024"


def test_evaluation_data_is_prepared_as_a_whole(write, renderer):
    found = stream(renderer, write("x.jsonl", rows(30)), eval_dataset=(write("e.jsonl", rows(20, "e")),))
    assert len(found.eval["validation"]) == 20
    assert any("20 samples" in line for line in found.report.lines())
    leaking = stream(renderer, "x.jsonl", eval_dataset=("x.jsonl",))
    assert any("training samples too" in line for line in leaking.report.lines()), "those of the first window are told"


# --- rows that cannot be used ---


def until_it_stops(found: SampleStream) -> tuple[int, DataError]:
    """(windows before the error, the error)"""
    count = 0
    try:
        for _window in found.windows():
            count += 1
    except DataError as error:
        return count, error
    raise AssertionError("a stream has no end")


def test_a_bad_row_stops_the_stream_where_it_comes(write, renderer):
    made: list[Any] = rows(30)
    made[2 * 8 + 1] = {"instruction": "x"}
    found = train(renderer, write("x.jsonl", made))
    windows, error = until_it_stops(found)
    assert windows == 2, "what comes before is trained on"
    assert error.problems[0].where == "x.jsonl:18"
    made[3] = {"instruction": "x"}
    with pytest.raises(DataError, match="column is missing"):
        stream(renderer, write("y.jsonl", made))  # in the first window: before anything is trained


def test_a_file_that_breaks_off_is_read_up_to_there(write, renderer):
    windows, error = until_it_stops(train(renderer, write("x.json", json.dumps(rows(40), indent=1)[:-40])))
    assert (windows, error.code) == (4, "E-DATA-003")


def test_bad_rows_are_counted_once_for_all_epochs(write, renderer):
    made: list[Any] = [*rows(30), {"instruction": "x"}]
    file = write("x.jsonl", made)
    found = train(renderer, file, on_bad_row="skip", max_bad_rows=1)
    assert len(list(islice(found.windows(), 12))) == 12, "three epochs"
    (report,) = found.tally.report().datasets
    assert (report.rows, report.kept, sum(report.dropped.values())) == (31, 30, 1)
    made += [{"instruction": "y"}]
    with pytest.raises(DataError, match="max_bad_rows allows 1") as caught:
        list(islice(train(renderer, write("y.jsonl", made), on_bad_row="skip", max_bad_rows=1).windows(), 12))
    assert caught.value.code == "E-DATA-023"


def test_the_limit_of_bad_rows_holds_through_a_resume(write, renderer):
    made: list[Any] = rows(30)
    made[1] = made[20] = {"instruction": "x"}
    file, keys = write("x.jsonl", made), {"on_bad_row": "skip", "max_bad_rows": 1}
    first = train(renderer, file, **keys)
    second_window = list(islice(first.windows(), 2))[1]
    with pytest.raises(DataError, match="2 rows cannot be used"):
        list(islice(train(renderer, file, position=saved(first, second_window), **keys).windows(), 4))


def test_a_dataset_of_which_nothing_is_left_is_an_error_after_an_epoch(write, renderer):
    bad = write("y.jsonl", [{"instruction": "x", "output": None}] * 3)
    found = train(renderer, write("x.jsonl", rows(30)), bad, on_bad_row="skip", max_bad_rows=99)
    windows, error = until_it_stops(found)
    assert (windows, error.code) == (4, "E-DATA-019"), "30 and 3 rows are five windows, the last with bad rows alone"
    assert "y.jsonl" in error.problems[0].what


def test_a_cutoff_that_loses_rows_stops_the_stream(write, renderer):
    long = [{"instruction": "q" * 50, "output": "a"}]
    made = [*rows(40), *long * 9]
    windows, error = until_it_stops(train(renderer, write("x.jsonl", made), cutoff_len=40))
    assert (windows, error.code) == (5, "E-DATA-091"), "the first 40 rows are fine"
    few = [*rows(80), *long * 4]  # 4 of 84
    assert len(list(islice(train(renderer, write("y.jsonl", few), cutoff_len=40).windows(), 12))) == 12


def test_a_column_that_is_not_there_so_far_is_told(write, renderer):
    mapping = {
        "path": write("x.jsonl", rows(30)),
        "columns": {"prompt": "instruction", "response": "output", "system": "sys"},
    }
    found = stream(renderer, mapping)
    assert any("so far" in line and "sys" in line for line in found.report.notices)
    with pytest.raises(DataError, match="sys"):
        list(islice(found.train.windows(), 9))


# --- quick ways ---


def test_a_fault_of_a_quick_way_makes_the_window_anew(write, renderer, monkeypatch):
    file = write("x.jsonl", rows(30))
    expected = contents(epoch(train(renderer, file)))
    encode, calls, given_up = renderer.encode_batch, [], []

    def faulty(chats: Any) -> Any:
        calls.append(len(chats))
        if len(calls) == 3:
            raise QuickWayFault("another id")
        return encode(chats)

    monkeypatch.setattr(renderer, "encode_batch", faulty)
    monkeypatch.setattr(renderer, "give_up_quick_ways", given_up.append, raising=False)
    assert contents(epoch(train(renderer, file))) == expected
    assert len(given_up) == 1


# --- what a checkpoint keeps ---


def test_another_stream_is_refused(write, renderer):
    file = write("x.jsonl", rows(30))
    first = train(renderer, file)
    position = saved(first, next(first.windows()))
    with pytest.raises(DataError) as caught:
        train(renderer, file, position=position, buffer_size=9, cutoff_len=77)
    assert caught.value.code == "E-DATA-113"
    assert "buffer_size was 8, is 9" in str(caught.value.problems[0].got)
    assert "cutoff_len" in caught.value.problems[0].what


def test_a_file_that_was_mended_goes_on_with_a_word(write, renderer, caplog):
    made: list[Any] = rows(30)
    made[20] = {"instruction": "x"}
    first = train(renderer, write("x.jsonl", made))
    position = saved(first, list(islice(first.windows(), 2))[1])
    write("x.jsonl", rows(30))
    with caplog.at_level(logging.WARNING, "tunesmith"):
        again = train(renderer, "x.jsonl", position=position)
    assert "x.jsonl has changed since the checkpoint" in caplog.text
    assert contents(list(islice(again.windows(), 3))) == contents(epoch(train(renderer, "x.jsonl")))[8:]


def test_num_samples_is_without_effect_and_told(write, renderer):
    found = stream(renderer, f"{write('x.jsonl', rows(30))}#4")
    assert any("num_samples is without effect" in line for line in found.report.notices)
    assert len(contents(epoch(found.train))) == 30


def test_the_report_tells_of_what_was_read(write, renderer):
    found = stream(renderer, write("x.jsonl", rows(30)))
    (report,) = found.report.datasets
    assert report.rows == 8, "the first window"
    assert any("first 8" in notice for notice in found.report.notices)
    list(islice(found.train.windows(), 5))
    (report,) = found.train.tally.report().datasets
    assert (report.rows, report.samples) == (30, 30)
    assert report.tokens == sum(len(text) for text in contents(epoch(train(renderer, "x.jsonl"))))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(write, renderer, tmp_path):
    """A stream holds a window and what is read ahead, not the file: of 40 MB less than 25 are in memory at once."""
    import tracemalloc

    file = tmp_path / "large.jsonl"
    with file.open("w") as out:
        for number in range(40_000):
            out.write(json.dumps({"instruction": str(number), "output": "x" * 1000}) + "\n")
    tracemalloc.start()
    found = train(renderer, str(file), buffer_size=500, preprocessing_batch_size=100)
    last = max(islice(found.windows(), 79), key=lambda window: window.number)
    assert last.number == 78
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 25e6


def lengths(windows: list[Window]) -> np.ndarray:
    return np.concatenate([window.samples.lengths for window in windows])


def test_packs_of_windows_are_full(write, renderer):
    """Windows of 2,000 rows fill packs of 2,048 tokens to 99 %."""
    random = np.random.default_rng(0)
    made = [{"instruction": "q", "output": "x" * int(size)} for size in random.lognormal(4.9, 0.6, 6000).clip(2, 2000)]
    windows = epoch(train(renderer, write("x.jsonl", made), buffer_size=2000, packing=True, cutoff_len=2048))
    assert lengths(windows).mean() > 0.99 * 2048


def test_paths_are_free_of_the_working_folder(write, renderer, tmp_path: Path):
    write("x.jsonl", rows(9))
    assert len(contents(epoch(train(renderer, str(tmp_path / "*.jsonl"))))) == 9


# --- pairs, feedback, prompts ---


def pairs(count: int) -> list[dict[str, Any]]:
    return [
        {"instruction": f"q{n}", "chosen": f"good {n}" + "!" * (n % 4), "rejected": f"bad {n}"} for n in range(count)
    ]


@pytest.mark.parametrize("keys", [{}, {"packing": True, "cutoff_len": 40}])
def test_pairs_stream_as_they_are_prepared(write, renderer, keys):
    write("p.jsonl", pairs(30))
    spec = {"path": "p.jsonl", "format": "alpaca", "ranking": True}
    whole = build_datasets(DataConfig(dataset=(spec,), **keys), renderer, stage="dpo", seed=3).train
    found = train(renderer, spec, stage="dpo", **keys)
    windows = list(islice(found.windows(), 6))
    streamed = [window for window in windows if window.epoch == 0]
    assert Counter(contents(streamed)) == Counter(texts(whole))
    for window in streamed:
        item = window.samples[0]
        assert item["kinds"].tolist() == [1, 2] * (len(item["kinds"]) // 2), "chosen and rejected, never torn"
        assert (item["shared"] > 0).all()
    assert_goes_on(renderer, windows, 3, spec, stage="dpo", **keys)


def test_feedback_of_one_kind_is_told_after_an_epoch(write, renderer):
    rows_ = [{"instruction": f"{n}", "output": "x", "liked": True} for n in range(20)]
    spec = {
        "path": write("f.jsonl", rows_),
        "format": "alpaca",
        "columns": {"prompt": "instruction", "response": "output", "kto_tag": "liked"},
    }
    windows, error = until_it_stops(train(renderer, spec, stage="kto"))
    assert (windows, error.code) == (3, "E-DATA-061")


def test_what_has_no_meaning_for_a_stage_is_refused(write, renderer):
    spec = {"path": write("p.jsonl", pairs(3)), "format": "alpaca", "ranking": True}
    with pytest.raises(UsageError, match="split"):
        stream(renderer, spec, stage="dpo", on_too_long="split")
