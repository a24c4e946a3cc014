"""The schedule of the learning rate: what a run adds to transformers' own, and its refusals in our words."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tunesmith.core.errors import Problem, UsageError

__all__ = ["making_schedule", "stable_and_decay"]


def stable_and_decay(given: Mapping[str, Any], steps: int, warmup: int) -> dict[str, Any]:
    """The settings of `warmup_stable_decay` for a run of so many steps. Where they say neither, a third of the steps
    after the warm-up is stable and the rest decays; where they say one, the other is the rest."""
    rest = max(steps - warmup, 0)
    stable, decay = given.get("num_stable_steps"), given.get("num_decay_steps")
    if stable is None:
        stable = rest // 3 if decay is None else max(rest - decay, 0)
    if decay is None:
        decay = max(rest - stable, 0)
    return {**given, "num_stable_steps": stable, "num_decay_steps": decay}


@contextmanager
def making_schedule(arguments: Any, steps: int) -> Iterator[None]:
    """Around the making of a schedule by transformers. Raises UsageError where it refuses the settings."""
    if arguments.lr_scheduler_type == "warmup_stable_decay":
        warmup = arguments.get_warmup_steps(steps)
        arguments.lr_scheduler_kwargs = stable_and_decay(arguments.lr_scheduler_kwargs or {}, steps, warmup)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Both num_training_steps and num_stable_steps", UserWarning)
            yield
    except (ValueError, TypeError) as error:
        what = "the schedule of the learning rate cannot be made with these settings"
        where = f"lr_scheduler_type: {getattr(arguments.lr_scheduler_type, 'value', arguments.lr_scheduler_type)}"
        raise UsageError(
            Problem("E-OPTIM-013", what, where, str(error), "change lr_scheduler_kwargs as the message says")
        ) from error
