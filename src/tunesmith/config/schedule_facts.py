"""The schedules of the learning rate: which settings each takes in `lr_scheduler_kwargs`, and which it needs."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SCHEDULES", "ScheduleFacts"]


@dataclass(frozen=True, slots=True)
class ScheduleFacts:
    """`takes`: names of settings. `one_of`: exactly one of these has to be given, like `example`."""

    takes: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    example: str = ""


_LEAST = ("min_lr", "min_lr_rate")
_EXAMPLE = "lr_scheduler_kwargs: {min_lr_rate: 0.1}"
_PLATEAU = ("mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr", "eps")
_GREEDY = (*_PLATEAU, "max_lr", "warmup", "smooth", "window_size", "reset_start", "verbose")
_STABLE = ("num_decay_steps", "num_stable_steps", "warmup_type", "decay_type", "min_lr_ratio", "num_cycles")

SCHEDULES: dict[str, ScheduleFacts] = {
    "linear": ScheduleFacts(),
    "cosine": ScheduleFacts(("num_cycles",)),
    "cosine_with_restarts": ScheduleFacts(("num_cycles",)),
    "polynomial": ScheduleFacts(("lr_end", "power")),
    "constant": ScheduleFacts(),
    "constant_with_warmup": ScheduleFacts(),
    "inverse_sqrt": ScheduleFacts(("timescale",)),
    "reduce_lr_on_plateau": ScheduleFacts(_PLATEAU),
    "cosine_with_min_lr": ScheduleFacts(("num_cycles", *_LEAST), _LEAST, _EXAMPLE),
    "cosine_warmup_with_min_lr": ScheduleFacts(("num_cycles", *_LEAST, "warmup_lr_rate"), _LEAST, _EXAMPLE),
    "warmup_stable_decay": ScheduleFacts(_STABLE),
    "greedy": ScheduleFacts(_GREEDY),
}
"""By `lr_scheduler_type`."""
