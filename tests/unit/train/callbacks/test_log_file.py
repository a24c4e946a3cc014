"""trainer_log.jsonl: one line per event, with the keys of the field."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tunesmith.train.callbacks.clock import Clock, duration
from tunesmith.train.callbacks.log_file import LogFile, append_line


def state(step: int, main: bool = True) -> SimpleNamespace:
    return SimpleNamespace(global_step=step, max_steps=20, epoch=step / 10, is_world_process_zero=main)


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()]


@pytest.fixture
def args(tmp_path: Path) -> SimpleNamespace:
    return SimpleNamespace(output_dir=str(tmp_path))


LOGS = {"loss": 1.5, "grad_norm": 0.5, "learning_rate": 1e-4, "epoch": 0.5, "tokens": 512, "tokens_per_second": 99.5}


def test_a_training_event_has_the_keys_of_the_field(args: SimpleNamespace, tmp_path: Path) -> None:
    log = LogFile()
    log.on_train_begin(args, state(0), None)
    log.on_step_begin(args, state(0), None)
    log.on_log(args, state(5), None, LOGS)
    (line,) = lines(tmp_path)
    times = {line.pop("elapsed_time"), line.pop("remaining_time")}
    assert times == {"0:00:00"}
    assert line == {
        "current_steps": 5,
        "total_steps": 20,
        "epoch": 0.5,
        "percentage": 25.0,
        "loss": 1.5,
        "grad_norm": 0.5,
        "lr": 1e-4,
        "tokens": 512,
        "tokens_per_second": 99.5,
    }


def test_an_evaluation_is_a_line_of_its_own_and_the_closing_summary_none(args: SimpleNamespace, tmp_path: Path) -> None:
    log = LogFile()
    log.on_train_begin(args, state(0), None)
    log.on_log(args, state(5), None, {"eval_loss": 2.0, "eval_runtime": 1.0, "eval_samples_per_second": 9.0})
    log.on_log(args, state(20), None, {"train_runtime": 1.0, "train_loss": 1.0, "epoch": 2.0})
    (line,) = lines(tmp_path)
    assert line["eval_loss"] == 2.0
    assert "loss" not in line
    assert not [key for key in line if "runtime" in key or "per_second" in key]


def test_a_fresh_run_begins_a_new_file_and_a_resumed_one_goes_on(args: SimpleNamespace, tmp_path: Path) -> None:
    append_line(tmp_path / "trainer_log.jsonl", {"current_steps": 5})
    append_line(tmp_path / "trainer_log.jsonl", {"current_steps": 6, "loss": "is made again"})
    resumed = LogFile(fresh=False)
    resumed.on_train_begin(args, state(5), None)
    resumed.on_log(args, state(6), None, LOGS)
    assert len(lines(tmp_path)) == 2
    LogFile().on_train_begin(args, state(0), None)
    assert not (tmp_path / "trainer_log.jsonl").exists()


def test_only_the_main_process_writes(args: SimpleNamespace, tmp_path: Path) -> None:
    log = LogFile()
    log.on_train_begin(args, state(0, main=False), None)
    log.on_log(args, state(5, main=False), None, LOGS)
    assert not list(tmp_path.iterdir())


def test_an_evaluation_without_training_is_logged(args: SimpleNamespace, tmp_path: Path) -> None:
    nothing = SimpleNamespace(global_step=0, max_steps=0, epoch=None, is_world_process_zero=True)
    LogFile().on_log(args, nothing, None, {"eval_loss": 2.0})
    (line,) = lines(tmp_path)
    assert (line["percentage"], line["remaining_time"], line["eval_loss"]) == (0.0, "-", 2.0)


def test_the_pace_of_a_resumed_run_counts_its_own_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    clock = Clock()
    clock.start()
    assert clock.remaining(90, 100) is None
    now = 200.0  # an evaluation before the first step
    clock.begin_step(90)
    assert clock.remaining(90, 100) is None
    now = 205.0
    clock.begin_step(91)
    now = 210.0
    assert clock.elapsed() == 110.0
    # 2 steps in 10 s, 8 to go
    assert clock.remaining(92, 100) == 40.0


def test_durations() -> None:
    assert [duration(value) for value in (None, 0, 65.4, 90061)] == ["-", "0:00:00", "0:01:05", "1 day, 1:01:01"]
