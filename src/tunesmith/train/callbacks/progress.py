"""Progress of a run: a live line on a terminal, one plain line per log event elsewhere. Main process only."""

from __future__ import annotations

import atexit
import logging
import sys
from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback

from tunesmith.core.log import get_logger
from tunesmith.train.callbacks.clock import Clock, duration

__all__ = ["ProgressDisplay", "event_text"]

_SHOWN = {"loss": "loss {:.4f}", "learning_rate": "lr {:.2e}", "tokens_per_second": "{:,.0f} tok/s"}
_LEAST_WAIT = 0.01  # share of the time: less is no reason to look at the data


class ProgressDisplay(TrainerCallback):
    """Shows step, loss, learning rate, speed, what was waited for and the time to go."""

    def __init__(self) -> None:
        self._clock = Clock()
        self._live: _Live | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._clock.start()
        if state.is_world_process_zero and sys.stderr.isatty():
            self._live = _Live(state.max_steps, state.global_step)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._clock.begin_step(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._live:
            self._live.step(state.global_step, self._eta(state))

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        if not state.is_world_process_zero or not logs:
            return
        if self._live and "loss" in logs:
            self._live.show(_loss_text(logs))
        elif text := event_text(logs, state.global_step, state.max_steps, self._eta(state)):
            get_logger().info("%s", text)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._live:
            self._live.evaluating(kwargs.get("eval_dataloader"))

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._live:
            self._live.evaluated()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._live:
            self._live.close()
            self._live = None

    def _eta(self, state: Any) -> str:
        return duration(self._clock.remaining(state.global_step, state.max_steps))


def event_text(logs: Mapping[str, Any], step: int, last: int, eta: str) -> str:
    """One log event as a plain line; empty for what is no event (the closing summary)."""
    place = f"step {step}/{last}"
    if "loss" in logs:
        return f"{place}  {_loss_text(logs)}  ETA {eta}"
    losses = {key: value for key, value in logs.items() if key.startswith("eval_") and key.endswith("loss")}
    return "  ".join([place, *(f"{_held_out(key)} {value:.4f}" for key, value in losses.items())]) if losses else ""


def _loss_text(logs: Mapping[str, Any]) -> str:
    parts = [shown.format(float(logs[key])) for key, shown in _SHOWN.items() if key in logs]
    if "mfu" in logs:
        parts.append(f"MFU {_percent(logs['mfu'])}")
    waited = logs.get("data_wait_seconds", 0.0) / (logs.get("seconds") or 1.0)
    if waited >= _LEAST_WAIT:
        parts.append(f"data wait {_percent(waited)}")
    return "  ".join(parts)


def _percent(share: float) -> str:
    """Two digits where there are as many: `31 %`, `2.4 %`."""
    return f"{share:.0%}".replace("%", " %") if share >= 0.0995 else f"{share:.1%}".replace("%", " %")


def _held_out(key: str) -> str:
    """`eval_loss` -> `held-out loss`, `eval_alpaca_loss` -> `held-out loss (alpaca)`."""
    name = key.removeprefix("eval_").removesuffix("loss").rstrip("_")
    return f"held-out loss ({name})" if name else "held-out loss"


class _Live:
    """The line on the terminal, drawn by rich. Log messages appear above it."""

    def __init__(self, last_step: int, step: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TextColumn("{task.fields[eta]}", style="cyan"),
            console=Console(stderr=True, highlight=False),  # rich itself respects NO_COLOR
            refresh_per_second=4,
        )
        self._train = self._progress.add_task("train", total=last_step, completed=step, facts="", eta="")
        self._eval: Any = None
        self._progress.start()
        atexit.register(self._progress.stop)  # a run that ends by an error: give the cursor back
        # rich replaces sys.stderr while it draws; a handler that keeps the old one would write into the line.
        self._handlers = [item for item in get_logger().handlers if isinstance(item, logging.StreamHandler)]
        self._streams = [handler.setStream(sys.stderr) for handler in self._handlers]

    def step(self, step: int, eta: str) -> None:
        self._progress.update(self._train, completed=step, eta=f"ETA {eta}")

    def show(self, facts: str) -> None:
        self._progress.update(self._train, facts=facts)

    def evaluating(self, loader: Any) -> None:
        if self._eval is None:
            total = len(loader) if hasattr(loader, "__len__") else None
            self._eval = self._progress.add_task("evaluate", total=total, facts="", eta="")
        self._progress.advance(self._eval)

    def evaluated(self) -> None:
        if self._eval is not None:
            self._progress.remove_task(self._eval)
            self._eval = None

    def close(self) -> None:
        self._progress.stop()
        atexit.unregister(self._progress.stop)
        for handler, stream in zip(self._handlers, self._streams, strict=True):
            if stream is not None:
                handler.setStream(stream)
