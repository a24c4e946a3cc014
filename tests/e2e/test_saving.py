"""Checkpoints of runs: what they hold, in the background too, on a full disk, and what one without a manifest is."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tests.e2e.test_exactness import assert_bit_identical, log
from tunesmith.checkpoints.states import load_tree
from tunesmith.checkpoints.store import committed, verify
from tunesmith.core.errors import DataError, StorageError, UsageError

SAVING = {"save_strategy": "steps", "save_steps": 2}


def curve(folder: Path) -> list[Any]:
    return [(line["current_steps"], line.get("loss"), line.get("grad_norm"), line.get("lr")) for line in log(folder)]


def test_a_checkpoint_holds_no_pickle_and_verifies(run) -> None:
    result = run(**SAVING)
    for folder in committed(result.output_dir):
        assert verify(folder) is None
        kinds = {path.suffix for path in folder.rglob("*") if path.is_file()}
        assert kinds <= {".json", ".safetensors", ".md", ".jinja"}, kinds
    assert not (result.output_dir / ".staging").exists() or not any((result.output_dir / ".staging").iterdir())


def test_a_checkpoint_in_the_background_is_the_same(train, tmp_path) -> None:
    plain = train(output_dir=str(tmp_path / "plain"), **SAVING)
    behind = train(output_dir=str(tmp_path / "behind"), async_save=True, **SAVING)
    assert_bit_identical(plain.output_dir, behind.output_dir)
    found = committed(behind.output_dir)
    assert [folder.name for folder in found] == [folder.name for folder in committed(plain.output_dir)]
    for folder in found:
        assert verify(folder) is None
        one, other = (
            load_file(place / folder.name / "model.safetensors") for place in (plain.output_dir, behind.output_dir)
        )
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    first, second = (load_tree(place / "checkpoint-6", "optimizer") for place in (plain.output_dir, behind.output_dir))
    for number, state in first["state"]["state"].items():
        assert all(torch.equal(state[name], second["state"]["state"][number][name]) for name in state)


def test_a_resume_within_a_logging_interval_tells_the_same_losses(train, tmp_path) -> None:
    keys = {"logging_steps": 5, "save_strategy": "steps", "save_steps": 3}
    whole = train(output_dir=str(tmp_path / "whole"), **keys)
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    for folder in committed(tmp_path / "stopped"):
        if folder.name != "checkpoint-3":
            shutil.rmtree(folder)
    resumed = train(output_dir=str(tmp_path / "stopped"), **keys)
    assert_bit_identical(whole.output_dir, resumed.output_dir)
    assert curve(whole.output_dir) == curve(resumed.output_dir)
    assert resumed.metrics["train_loss"] == whole.metrics["train_loss"]


def test_a_run_that_was_killed_after_its_last_step_trains_no_further(train, tmp_path) -> None:
    keys = {"max_steps": 8, "save_strategy": "steps", "save_steps": 4}
    whole = train(output_dir=str(tmp_path / "out"), **keys)
    kept = (tmp_path / "out" / "model.safetensors").read_bytes()
    for name in ("model.safetensors", "train_results.json"):
        (tmp_path / "out" / name).unlink()
    again = train(output_dir=str(tmp_path / "out"), **keys)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == kept
    assert again.metrics["train_loss"] == whole.metrics["train_loss"]
    assert [folder.name for folder in committed(tmp_path / "out")] == ["checkpoint-4", "checkpoint-8"]


def test_the_newest_that_verifies_is_taken(run, caplog: pytest.LogCaptureFixture) -> None:
    result = run(num_train_epochs=2, **SAVING)
    weights = result.output_dir / "checkpoint-8" / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    logging.getLogger("tunesmith").propagate = True
    with caplog.at_level(logging.WARNING, "tunesmith"):
        again = run(num_train_epochs=2, **SAVING)
    assert str(again.plan.resume).endswith("checkpoint-6")
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    said = [message for message in warnings if "checkpoint-8" in message]
    assert len(said) == 1
    assert "adapter_model.safetensors has changed since it was saved" in said[0]
    assert verify(result.output_dir / "checkpoint-8") is None


def test_where_the_only_checkpoint_is_damaged_nothing_begins_anew(run) -> None:
    result = run(save_strategy="steps", save_steps=4)
    (result.output_dir / "checkpoint-4" / "optimizer.safetensors").unlink()
    with pytest.raises(DataError, match=r"optimizer\.safetensors is missing") as caught:
        run(save_strategy="steps", save_steps=4)
    assert caught.value.exit_code == 65


def test_false_begins_anew_and_moves_earlier_checkpoints_aside(run) -> None:
    result = run(**SAVING)
    again = run(resume_from_checkpoint=False, overwrite_output_dir=True)
    assert again.plan.resume is None
    assert sorted(path.name for path in (result.output_dir / "earlier-1").glob("checkpoint-*")) == [
        "checkpoint-2",
        "checkpoint-4",
    ]


def test_a_path_wins_and_later_checkpoints_are_of_another_course(run) -> None:
    result = run(num_train_epochs=2, **SAVING)
    again = run(
        num_train_epochs=2, resume_from_checkpoint=str(result.output_dir / "checkpoint-4"), overwrite_output_dir=True
    )
    assert str(again.plan.resume).endswith("checkpoint-4")
    assert [folder.name for folder in committed(result.output_dir)] == ["checkpoint-2", "checkpoint-4"]
    assert (result.output_dir / "earlier-1" / "checkpoint-8").is_dir()


def full(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("policy", ["stop", "continue"])
def test_a_full_disk_stops_the_run_or_does_not(run, policy, monkeypatch, tmp_path) -> None:
    from tunesmith.train import saving

    original = saving.save_tree

    def save_tree(folder: Path, name: str, tree: Any) -> Any:
        found = original(folder, name, tree)
        if folder.name == "checkpoint-4" and name == "optimizer":
            full()
        return found

    monkeypatch.setattr(saving, "save_tree", save_tree)
    keys = {"num_train_epochs": 2, "on_disk_full": policy, **SAVING}
    if policy == "stop":
        with pytest.raises(StorageError, match="the disk is full") as caught:
            run(**keys)
        assert "free" in str(caught.value.problems[0].got)
        assert [folder.name for folder in committed(tmp_path / "out")] == ["checkpoint-2"]
    else:
        run(**keys)
        assert [folder.name for folder in committed(tmp_path / "out")] == [
            "checkpoint-2",
            "checkpoint-6",
            "checkpoint-8",
        ]
    monkeypatch.setattr(saving, "save_tree", original)
    assert run(num_train_epochs=2, **SAVING).plan.resume is not None


def test_room_that_is_held_is_given_up_for_a_checkpoint(run, monkeypatch, tmp_path) -> None:
    """A disk that others have filled up, but for what the run holds."""
    from tunesmith.train import saving

    original, sizes = saving.save_tree, []

    def save_tree(folder: Path, name: str, tree: Any) -> Any:
        held = tmp_path / "out" / ".reserve"
        sizes.append(held.stat().st_size if held.exists() else 0)
        if folder.name == "checkpoint-4" and held.exists():
            full()
        return original(folder, name, tree)

    monkeypatch.setattr(saving, "save_tree", save_tree)
    run(num_train_epochs=2, disk_reserve_gb=0.002, **SAVING)
    names = [folder.name for folder in committed(tmp_path / "out")]
    assert names == ["checkpoint-2", "checkpoint-4", "checkpoint-6", "checkpoint-8"]
    assert {0, 2_000_000} == set(sizes), "held before and after"
    assert sizes.count(0) < sizes.count(2_000_000)
    assert not (tmp_path / "out" / ".reserve").exists(), "nothing is left of it"
    with pytest.raises(StorageError, match="free"):
        run(num_train_epochs=3, disk_reserve_gb=10**9, **SAVING)


def test_a_disk_without_room_is_told_before_anything_is_written(run, monkeypatch, tmp_path) -> None:
    from tunesmith.train import saving

    monkeypatch.setattr(saving.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(StorageError, match="no room") as caught:
        run(**SAVING)
    assert "1.0 MB free" in str(caught.value)
    assert committed(tmp_path / "out") == []


def test_a_checkpoint_of_transformers_own_layout_is_taken(train, tmp_path) -> None:
    """As LlamaFactory and older versions leave it: optimizer.pt, scheduler.pt, rng_state.pth, no manifest."""
    import random

    import numpy as np

    whole = train(output_dir=str(tmp_path / "whole"), **SAVING)
    theirs = tmp_path / "theirs" / "checkpoint-6"
    shutil.copytree(whole.output_dir / "checkpoint-6", theirs)
    optimizer, schedule = load_tree(theirs, "optimizer"), load_tree(theirs, "schedule")
    chance = load_tree(theirs, "process_0")["chance"]
    torch.save(optimizer["state"], theirs / "optimizer.pt")
    torch.save(schedule["state"], theirs / "scheduler.pt")
    kind, words, *rest = chance["numpy"]
    states = {
        "python": chance["python"],
        "numpy": (kind, words.numpy().astype(np.uint32), *rest),
        "cpu": chance["torch"],
    }
    torch.save(states, theirs / "rng_state.pth")
    for pattern in (
        "optimizer.json",
        "optimizer.safetensors",
        "schedule.*",
        "process_0.*",
        "progress.*",
        "manifest.json",
    ):
        for file in theirs.glob(pattern):
            file.unlink()
    assert random.getstate()  # the format of Python's own generator is theirs too
    resumed = train(output_dir=str(tmp_path / "theirs"), **SAVING)
    assert_bit_identical(whole.output_dir, resumed.output_dir)


def test_the_best_checkpoint_is_found_in_a_folder_that_was_moved(train, tmp_path) -> None:
    keys = {
        "val_size": 4,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "load_best_model_at_end": True,
        "learning_rate": 3e-2,
        **SAVING,
    }
    whole = train(output_dir=str(tmp_path / "whole"), **keys)
    shutil.copytree(tmp_path / "whole", tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved" / "checkpoint-10")
    os.rename(tmp_path / "whole", tmp_path / "gone")
    moved = train(output_dir=str(tmp_path / "moved"), **keys)
    assert_bit_identical(tmp_path / "gone", moved.output_dir)
    state = json.loads((moved.output_dir / "trainer_state.json").read_text())
    assert str(tmp_path / "moved") in state["best_model_checkpoint"]
    assert whole.plan.resume is None


def test_two_runs_do_not_share_a_folder(run, tmp_path) -> None:
    from tunesmith.train.lock import hold

    with hold(tmp_path / "out"), pytest.raises(UsageError, match="another run") as caught:
        run()
    assert f"process {os.getpid()}" in str(caught.value)
    assert not (tmp_path / "out").exists()
    run()


def test_what_safetensors_says_of_a_full_disk_is_an_error_of_the_disk(tmp_path) -> None:
    from tunesmith.train.saving import as_storage_error

    with pytest.raises(SafetensorError, match="os error") as caught:
        save_file({"a": torch.ones(3)}, tmp_path / "no folder" / "model.safetensors")
    assert as_storage_error(caught.value, tmp_path) is None
    words = str(caught.value).replace("os error 2", "os error 28")
    assert words != str(caught.value), "it tells the number of the error so"
    found = as_storage_error(SafetensorError(words), tmp_path)
    assert found is not None
    assert "the disk is full" in str(found)
