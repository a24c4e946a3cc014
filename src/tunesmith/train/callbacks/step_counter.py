"""Hands up how many optimizer steps are done, to whoever keeps the record of the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

__all__ = ["StepCounter"]


class StepCounter(TrainerCallback):
    """Calls `on_steps(done, total)` when training begins and after every step."""

    def __init__(self, on_steps: Callable[[int, int], None]) -> None:
        self._on_steps = on_steps

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._on_steps(state.global_step, state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._on_steps(state.global_step, state.max_steps)
