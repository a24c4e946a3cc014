"""Where a run stands in time: elapsed, remaining, and how to write a duration."""

from __future__ import annotations

import time
from datetime import timedelta

__all__ = ["Clock", "duration"]


class Clock:
    """Counts from `start`. A resumed run starts at a later step, and only steps done since then tell the pace."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._first_step = 0

    def start(self, step: int) -> None:
        self._began = time.monotonic()
        self._first_step = step

    def elapsed(self) -> float:
        """Seconds since the start; 0 where there was none (evaluation without training)."""
        return time.monotonic() - self._began if self._began is not None else 0.0

    def remaining(self, step: int, last_step: int) -> float | None:
        """Seconds to go at the pace so far, None before the first step is done."""
        done = step - self._first_step
        return self.elapsed() / done * max(last_step - step, 0) if done > 0 else None


def duration(seconds: float | None) -> str:
    """`0:01:05`, `1 day, 2:00:00`; `-` if unknown."""
    return "-" if seconds is None else str(timedelta(seconds=round(seconds)))
