"""Preparing a dataset: blocks, processes, the quick ways and the long one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from tunesmith.config.data import DataConfig
from tunesmith.config.template import TemplateConfig
from tunesmith.core.errors import MachineError
from tunesmith.data import Datasets, build_datasets
from tunesmith.data import prepare as prepare_module
from tunesmith.data.workers import map_in_order
from tunesmith.render import Renderer, make_renderer

forks = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 chats of one to three questions, some of them unusable."""
    random = Random(1)
    words = ["red", "blue", "3 + 4", "\n", "é", "what", "is", "<think>", "<|im_end|>", "  ", "?"]
    rows = []
    for number in range(300):
        turns = []
        for _ in range(random.randint(1, 3)):
            for who in ("human", "gpt"):
                value = " ".join(random.choices(words, k=random.randint(1, 12))).strip() or "x"
                turns.append({"from": who, "value": value})
        if number % 50 == 7:
            turns.pop()
        rows.append(json.dumps({"conversations": turns}) if number % 90 != 13 else "{broken")
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("\n".join(rows))
    return path


def make(tiny_model: Path) -> Renderer:
    from transformers import AutoTokenizer

    return make_renderer(TemplateConfig(), AutoTokenizer.from_pretrained(tiny_model))


def build(file: Path, renderer: Renderer, **settings: Any) -> Datasets:
    config = DataConfig(
        dataset=(str(file),), on_bad_row="skip", max_bad_rows=99, overwrite_cache=True, cutoff_len=999, **settings
    )
    return build_datasets(config, renderer, stage="sft", seed=1)


def same(one: Datasets, other: Datasets) -> None:
    assert one.train is not None
    assert other.train is not None
    for mine, yours in zip(one.train, other.train, strict=True):
        assert mine["input_ids"].tolist() == yours["input_ids"].tolist()
        assert mine["trained"].tolist() == yours["trained"].tolist()
    assert [str(one.train.origin(i)) for i in range(len(one.train))] == [
        str(other.train.origin(i)) for i in range(len(other.train))
    ]
    ours, theirs = one.report.to_dict(), other.report.to_dict()
    ours.pop("encoders"), theirs.pop("encoders")
    assert ours == theirs


@forks
def test_processes_give_what_one_gives(file: Path, tiny_model: Path) -> None:
    alone = build(file, make(tiny_model), preprocessing_num_workers=0)
    assert sum(alone.report.datasets[0].dropped.values()) == 10
    for workers, block in ((1, 1000), (2, 17), (3, 64)):
        same(build(file, make(tiny_model), preprocessing_num_workers=workers, preprocessing_batch_size=block), alone)


@pytest.mark.slow
@forks
def test_processes_do_not_wait_for_threads_that_did_not_come_along(tiny_model: Path, tmp_path: Path) -> None:
    """The library's threads are at work in the parent before, and the user wants them."""
    script = """
import os, sys
os.environ["TOKENIZERS_PARALLELISM"] = "true"
from tests.unit.data.test_prepare import build, make
from pathlib import Path
renderer = make(Path(sys.argv[2]))
renderer._backend.encode_batch(["some words to encode"] * 999)
print(len(build(Path(sys.argv[1]), renderer, preprocessing_num_workers=2, preprocessing_batch_size=9).train))
"""
    path = tmp_path / "rows.jsonl"
    rows = [{"instruction": "What is red? " * 9, "output": f"No. {number} is red. " * 9} for number in range(99)]
    path.write_text("\n".join(map(json.dumps, rows)))
    command = [sys.executable, "-c", script, str(path), str(tiny_model)]
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=root, check=True)
    assert done.stdout.strip() == "99"


def test_the_slow_reference_gives_the_same(file: Path, tiny_model: Path) -> None:
    """One row at a time, rendered span by span, encoded by tokenizers."""
    from tunesmith.data import read_examples

    renderer = make(tiny_model)
    config = DataConfig(dataset=(str(file),), on_bad_row="skip", max_bad_rows=99)
    rows = read_examples(config, stage="sft")
    slow = [renderer._encoder.encode([spans])[0] for row in rows for spans in renderer.template.samples(row)]  # type: ignore[arg-type]
    quick = build(file, make(tiny_model), preprocessing_num_workers=0).train
    assert quick is not None
    assert len(slow) == len(quick)
    for expected, found in zip(slow, quick, strict=True):
        assert found["input_ids"].tolist() == list(expected.ids)
        assert found["trained"].tolist() == list(expected.trained)


def test_a_large_file_takes_the_faster_encoder_and_has_the_same(
    file: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("kitoken", reason="kitoken has no wheel for this machine")
    plain = build(file, make(tiny_model))
    monkeypatch.setattr(prepare_module, "MANY_BYTES", 1)
    quick = build(file, make(tiny_model))
    assert plain.report.encoders == ["tokenizers"]
    assert quick.report.encoders[0].startswith("kitoken ")
    same(quick, plain)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=forks)])
def test_a_quick_way_that_errs_is_given_up_and_all_is_made_anew(
    workers: int, file: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("kitoken", reason="kitoken has no wheel for this machine")
    plain = build(file, make(tiny_model))
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
    found = build(file, renderer, preprocessing_num_workers=workers, preprocessing_batch_size=50)
    same(found, plain)
    assert found.report.encoders == ["tokenizers"]
    assert any("kitoken's ids" in notice for notice in renderer.notices)


def test_num_samples_reads_only_those_in_the_order_of_the_sample(write: Any, renderer: Any) -> None:
    rows = [{"instruction": "u", "output": "" if number == 3 else chr(97 + number)} for number in range(10)]
    write("data/x.jsonl", rows)
    write("data/dataset_info.json", {"d": {"file_name": "x.jsonl", "num_samples": 25}})
    config = DataConfig(dataset=("d",), on_bad_row="skip", max_bad_rows=9)
    train = build_datasets(config, renderer, stage="sft", seed=3).train
    assert train is not None
    from tunesmith.data.mix import sample

    wanted = [number for number in sample(10, 25, 3).tolist() if number != 3]
    assert [train.origin(index).row for index in range(len(train))] == wanted
    assert [chr(train[index]["input_ids"][-2]) for index in range(len(train))] == [chr(97 + row) for row in wanted]


def test_the_weight_of_a_dataset_is_on_its_trained_tokens(write: Any, renderer: Any) -> None:
    for name in "xy":
        write(f"data/{name}.jsonl", [{"instruction": "u", "output": name}])
    entries = {"x": {"file_name": "x.jsonl", "weight": 0.5}, "y": {"file_name": "y.jsonl"}}
    write("data/dataset_info.json", entries)
    train = build_datasets(DataConfig(dataset=("x", "y")), renderer, stage="sft", seed=1).train
    assert train is not None
    assert train[0]["weights"][train[0]["trained"]].tolist() == [0.5, 0.5]
    assert train[1]["weights"].tolist() == [1, 1, 1, 1]


@forks
def test_a_killed_process_is_told_and_keeps_nothing() -> None:
    def work(number: int) -> int:
        if number == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with pytest.raises(MachineError, match="E-DATA-110"):
        list(map_in_order(work, range(20), 2))


@forks
def test_results_come_in_order_and_errors_come_through() -> None:
    assert list(map_in_order(lambda number: number * 2, range(50), 3)) == [number * 2 for number in range(50)]

    def fail(number: int) -> int:
        raise ValueError(f"row {number}")

    with pytest.raises(ValueError, match="row 0"):
        list(map_in_order(fail, range(3), 2))


def test_arrays_are_mapped_not_read(file: Path, tiny_model: Path) -> None:
    train = build(file, make(tiny_model)).train
    assert train is not None
    (store,) = train.stores  # type: ignore[union-attr]
    assert isinstance(store.ids, np.memmap)
