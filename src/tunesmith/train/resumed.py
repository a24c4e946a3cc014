"""What transformers takes from a checkpoint though the config of today says otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

__all__ = ["Resumed"]


class Resumed(TrainerCallback):
    """When training begins: how often it logs, evaluates and saves is as the config says today, and the best checkpoint
    is found where the run's folder is today. `take_up`: what the trainer itself goes on with."""

    def __init__(self, take_up: Callable[[], None]) -> None:
        self._take_up = take_up

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not state.global_step:
            return
        self._take_up()
        state.compute_steps(args, state.max_steps)
        if state.best_global_step:
            best = Path(args.output_dir) / f"checkpoint-{state.best_global_step}"
            if best.is_dir():
                state.best_model_checkpoint = str(best)
