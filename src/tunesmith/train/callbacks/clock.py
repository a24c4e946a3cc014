"""Where a run stands in time: elapsed, remaining, and how to write a duration."""

from __future__ import annotations

import time
from datetime import timedelta

__all__ = ["Clock", "duration"]


class Clock:
    """Counts from `start`. The pace is that of the steps of this process: a resumed run begins at a later step, and
    what lies before the first step (an evaluation, say) tells nothing about the others."""

    def __init__(self, before: float = 0.0) -> None:
        self._before = before
        self._began: float | None = None
        self._first_step: tuple[int, float] | None = None

    def start(self) -> None:
        self._began = time.monotonic()

    def begin_step(self, done: int) -> None:
        """A step begins after `done` steps; only the first call counts."""
        if self._first_step is None:
            self._first_step = (done, time.monotonic())

    def elapsed(self) -> float:
        """Seconds since the start, and those before it in an earlier session of the run; 0 where there was none
        (evaluation without training)."""
        return self._before + time.monotonic() - self._began if self._began is not None else 0.0

    def remaining(self, step: int, last_step: int) -> float | None:
        """Seconds to go after `step` steps, at the pace so far; None before the first step is done."""
        if self._first_step is None or step <= self._first_step[0]:
            return None
        first, since = self._first_step
        return (time.monotonic() - since) / (step - first) * max(last_step - step, 0)


def duration(seconds: float | None) -> str:
    """`0:01:05`, `1 day, 2:00:00`; `-` if unknown."""
    return "-" if seconds is None else str(timedelta(seconds=round(seconds)))
