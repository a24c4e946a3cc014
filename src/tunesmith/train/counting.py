"""Progress of what counts up and is not a training step: nothing for two seconds, then a bar or plain lines."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from tunesmith.core.log import get_logger, is_main_process

__all__ = ["Counting"]

_PATIENCE = 2.0  # seconds: what is faster than this needs no bar
_EVERY = 10.0  # seconds between plain lines


class Counting:
    """`with Counting("rendering", "rows") as count: count(done, total)`. A total of None: unknown. `bar` False: lines,
    for who has a bar on the terminal already."""

    def __init__(self, label: str, unit: str, *, bar: bool = True) -> None:
        self._may_draw = bar
        self._label = label
        self._unit = unit
        self._begin = time.monotonic()
        self._line = self._begin + _PATIENCE - _EVERY
        self._bar: Any = None
        self._task: Any = None

    def __call__(self, done: int, total: int | None) -> None:
        elapsed = time.monotonic() - self._begin
        if elapsed < _PATIENCE or not is_main_process():
            return
        if self._may_draw and sys.stderr.isatty():
            self._draw(done, total)
        elif time.monotonic() - self._line >= _EVERY:
            self._line = time.monotonic()
            get_logger().info("%s", self._text(done, total, elapsed))

    def _text(self, done: int, total: int | None, elapsed: float) -> str:
        text = f"{self._label}: {done:,}" + (f"/{total:,}" if total else "") + f" {self._unit}"
        if total and done:
            left = round(elapsed * (total - done) / done)
            text += f", ETA {left // 60}:{left % 60:02}"
        return text

    def _draw(self, done: int, total: int | None) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(f"{self._label} {self._unit}", total=total)
            self._bar.start()
        self._bar.update(self._task, completed=done, total=total)

    def __enter__(self) -> Counting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
