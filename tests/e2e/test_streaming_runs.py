"""Whole runs that stream their data: they equal themselves however they are split, prepared or interrupted."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.run_logs import curve, same_weights
from tunesmith.core.errors import ConfigError, DataError, MissingInputError


@pytest.fixture
def stream(train: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """`stream(name, key=value, ...)`: 12 steps over windows of 20 of 50 rows, so that the first epoch ends in step 13
    of 4 rows, and step 5 begins the second window -> Result."""
    keys = {"streaming": True, "buffer_size": 20, "max_samples": 50, "max_steps": 16}
    return lambda name, **changes: train(**{**keys, "output_dir": str(tmp_path / name), **changes})


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"packing": True, "cutoff_len": 300, "train_sampling_strategy": "group_by_length"},
        {"finetuning_type": "lora", "lora_rank": 4, "lora_dropout": 0.1, "disable_shuffling": True},
    ],
    ids=["rows", "packs", "lora"],
)
def test_a_stream_resumes_to_the_same_bits(stream: Callable[..., Any], tmp_path: Path, keys: dict[str, Any]) -> None:
    whole = stream("whole", save_strategy="steps", save_steps=3, **keys)
    assert (tmp_path / "whole" / "checkpoint-3" / "stream.json").is_file()
    for step in (3, 6, 15):
        resumed = stream(f"from{step}", resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"), **keys)
        assert curve(resumed) == curve(whole)[step:]
        assert same_weights(whole, resumed)


@pytest.mark.slow
def test_loaders_and_processes_change_nothing(stream: Callable[..., Any], tmp_path: Path) -> None:
    keys = {"packing": True, "cutoff_len": 300, "preprocessing_batch_size": 4}
    whole = stream("whole", preprocessing_num_workers=0, **keys)
    for name, workers in {"one": (1, 0), "four": (4, 4)}.items():
        other = stream(name, preprocessing_num_workers=workers[0], dataloader_num_workers=workers[1], **keys)
        assert curve(other) == curve(whole)
        assert same_weights(whole, other)


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "accumulation"), [(2, 2), (1, 4)])
def test_accumulation_changes_nothing_in_a_stream(stream: Callable[..., Any], batch: int, accumulation: int) -> None:
    whole = stream("whole", val_size=7, eval_strategy="steps", eval_steps=16)
    split = stream(
        "split",
        val_size=7,
        eval_strategy="steps",
        eval_steps=16,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
    )
    for found, wanted in zip(curve(split), curve(whole), strict=True):
        assert found == pytest.approx(wanted, rel=1e-5)
    assert split.metrics["eval_loss"] == pytest.approx(whole.metrics["eval_loss"], rel=1e-5)


@pytest.mark.slow
def test_two_ranks_change_nothing_in_a_stream(
    stream: Callable[..., Any], launch: Callable[..., Any], run_keys: dict[str, Any], tmp_path: Path
) -> None:
    """And a run of two ranks is resumed by one: the place in the stream is the same for all."""
    whole = stream("whole")
    keys = {**run_keys, "streaming": True, "buffer_size": 20, "max_samples": 50, "max_steps": 16}
    folder = tmp_path / "ranks"
    keys |= {"output_dir": str(folder), "per_device_train_batch_size": 2, "save_strategy": "steps", "save_steps": 9}
    lines = [line for line in launch(2, keys) if "loss" in line]
    for line, wanted in zip(lines, curve(whole), strict=True):
        assert (line["loss"], line["grad_norm"]) == pytest.approx(wanted, rel=1e-5)
    resumed = stream("resumed", resume_from_checkpoint=str(folder / "checkpoint-9"))
    for found, wanted in zip(curve(resumed), curve(whole)[9:], strict=True):
        assert found == pytest.approx(wanted, rel=1e-4)


def test_a_bad_row_in_the_middle_loses_no_step(
    stream: Callable[..., Any], assets: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 45 is in the third window, which step 11 begins: ten steps are saved, and mending the row is all there is to
    do."""
    rows = json.loads((assets / "data" / "sft" / "alpaca_en_demo.json").read_text())[:50]
    broken = [dict(row) for row in rows]
    broken[44]["output"] = None
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(broken, indent=1))
    with caplog.at_level(logging.WARNING, "tunesmith"), pytest.raises(DataError) as caught:
        stream("out", dataset=str(file))
    assert caught.value.code == "E-DATA-013"
    assert f"saved {tmp_path / 'out' / 'checkpoint-10'}: once the rows are mended" in caplog.text
    file.write_text(json.dumps(rows, indent=1))
    resumed = stream("out", dataset=str(file))
    whole = stream("whole", dataset=str(file))
    assert same_weights(whole, resumed)
    assert curve(resumed) == curve(whole), "the log goes on where it was"


def test_a_stream_and_its_checkpoint_are_of_one_kind(stream: Callable[..., Any], tmp_path: Path) -> None:
    stream("rows", streaming=False, save_strategy="steps", save_steps=8)
    stream("stream", save_strategy="steps", save_steps=8)
    for name, streaming in (("rows", True), ("stream", False)):
        checkpoint = str(tmp_path / name / "checkpoint-8")
        with pytest.raises(MissingInputError) as caught:
            stream("x", streaming=streaming, resume_allow="streaming", resume_from_checkpoint=checkpoint)
        assert caught.value.code == "E-TRAIN-017"
    with pytest.raises(DataError, match="in another way"):
        stream("x", data_seed=5, resume_allow="data_seed", resume_from_checkpoint=checkpoint)


def test_a_stream_needs_a_number_of_steps(stream: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="max_steps"):
        stream("x", max_steps=-1)


def test_a_stream_tells_what_it_has_read(stream: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    """16 steps of 4 rows are the first epoch of 50 rows and 14 more; nothing of it is kept in the cache."""
    with caplog.at_level(logging.INFO, "tunesmith"):
        result = stream("out")
    report = json.loads((result.output_dir / "data_report.json").read_text())
    assert report["total"]["rows"] == 50
    assert "rows are read while training" in caplog.text
    assert "the stream has read 50 rows in the first of 2 epochs" in caplog.text
