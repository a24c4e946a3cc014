"""What watches a run: progress on the terminal, the log file, the plot. Nothing in here changes what is learnt."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import TrainerCallback

    from tunesmith.config import RunConfig, RunPlan

__all__ = ["make_callbacks"]


def make_callbacks(config: RunConfig, plan: RunPlan, on_steps: Callable[[int, int], None]) -> list[TrainerCallback]:
    """The callbacks of a run. They replace transformers' own printer and progress bar. `on_steps(done, total)` is
    called after every step."""
    from transformers import EarlyStoppingCallback

    from tunesmith.train.callbacks.log_file import LogFile
    from tunesmith.train.callbacks.progress import ProgressDisplay
    from tunesmith.train.callbacks.step_counter import StepCounter
    from tunesmith.train.states import seconds_before

    log = LogFile(fresh=plan.resume is None, before=seconds_before(plan.resume))
    callbacks: list[TrainerCallback] = [log, ProgressDisplay(), StepCounter(on_steps)]
    if config.objective.early_stopping_steps:
        callbacks.append(EarlyStoppingCallback(early_stopping_patience=config.objective.early_stopping_steps))
    return callbacks
