"""`trainer_log.jsonl`: one JSON object per log event, with the keys that tools of the field read.

{"current_steps": 10, "total_steps": 200, "loss": 1.25, "lr": 9e-05, "epoch": 0.5, "percentage": 5.0,
 "elapsed_time": "0:00:12", "remaining_time": "0:03:48", "grad_norm": 0.8, "tokens": 5120,
 "tokens_per_second": 426.7, ...}
{"current_steps": 10, "total_steps": 200, "eval_loss": 1.31, ...}

docs/logs.md explains every key.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from tunesmith.core.files import fsync, write_atomically
from tunesmith.train.callbacks.clock import Clock, duration
from tunesmith.train.callbacks.names import LOG_NAME

__all__ = ["LogFile", "append_line", "repair_log", "sync_log"]

_RENAMED = {"learning_rate": "lr"}
_TIMINGS = ("_runtime", "_per_second")  # of an evaluation: not part of the curve


class LogFile(TrainerCallback):
    """Writes in the main process only. A `fresh` run begins a new file, a resumed one goes on with the old, up to the
    step that it resumes from. `before`: seconds of training up to there."""

    def __init__(self, *, fresh: bool = True, before: float = 0.0) -> None:
        self._clock = Clock(before)
        self._fresh = fresh

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._clock.start()
        if state.is_world_process_zero:
            if self._fresh:
                _path(args).unlink(missing_ok=True)
            else:
                repair_log(_path(args), state.global_step)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._clock.begin_step(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        if not state.is_world_process_zero or not logs:
            return
        values = dict(_values(logs))
        if values:
            append_line(_path(args), {**self._position(state), **values})

    def _position(self, state: Any) -> dict[str, Any]:
        step, last = state.global_step, state.max_steps
        return {
            "current_steps": step,
            "total_steps": last,
            "epoch": round(state.epoch or 0.0, 4),
            "percentage": round(step / last * 100, 2) if last > 0 else 0.0,
            "elapsed_time": duration(self._clock.elapsed()),
            "remaining_time": duration(self._clock.remaining(step, last)),
        }


def _values(logs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What is worth a line: losses of training and of each evaluation set, and metrics that are plain numbers.

    The closing summary of a run (train_runtime, train_loss, ...) is not an event of the curve.
    """
    if "train_runtime" in logs:
        return
    for key, value in logs.items():
        timing = key.startswith("eval_") and key.endswith(_TIMINGS)
        if isinstance(value, int | float) and key != "epoch" and not timing:
            yield _RENAMED.get(key, key), value


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """Append one JSON line in a single write, so that a reader or a crash never meets half of one."""
    line = json.dumps(value, ensure_ascii=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    data = line.encode("utf-8")
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        before = os.fstat(file).st_size
        try:
            if os.write(file, data) < len(data):
                raise OSError(errno.ENOSPC, "the line was written in part", str(path))
        except OSError:
            os.ftruncate(file, before)
            raise
    finally:
        os.close(file)


def repair_log(path: Path, step: int) -> None:
    """Leave out what a run wrote behind a step that is made again, and a line that was cut off."""
    if not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if (found := _step_of(line)) is not None and found <= step]
    if kept != lines:
        write_atomically(path, b"".join(kept))


def _step_of(line: bytes) -> int | None:
    try:
        found = json.loads(line)["current_steps"] if line.endswith(b"\n") else None
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, int) else None


def sync_log(output_dir: Path) -> None:
    """Put the log on the disk: a checkpoint must not outlive the lines that come before it."""
    if (output_dir / LOG_NAME).exists():
        fsync(output_dir / LOG_NAME)
        fsync(output_dir)


def _path(args: Any) -> Path:
    return Path(args.output_dir) / LOG_NAME
