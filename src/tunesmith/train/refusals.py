"""What a training run refuses, in our words: errors of the Trainer as problems with a place and a fix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.core.errors import MachineError, Problem, TunesmithError, UsageError

__all__ = ["optimizer_refused", "unknown_metric"]


def optimizer_refused(error: Exception, optim: Any) -> TunesmithError:
    """A package that is missing, or settings that contradict each other."""
    missing = isinstance(error, ImportError)
    kind = MachineError if missing else UsageError
    return kind(
        Problem(
            "E-TRAIN-010" if missing else "E-TRAIN-002",
            "the optimizer cannot be made",
            where=f"optim: {getattr(optim, 'value', optim)}",
            got=str(error),
            fix="install the package, or leave optim out" if missing else "change the key that is named",
        )
    )


def unknown_metric(watched: str | None, metrics: Mapping[str, float]) -> UsageError | None:
    """An error where the metric to watch is none of the evaluation's."""
    if not watched or f"eval_{watched.removeprefix('eval_')}" in metrics:
        return None
    names = [name.removeprefix("eval_") for name in metrics if name.endswith(("loss", "accuracy"))]
    what = "the metric to watch is none of the evaluation's"
    fix = f"metric_for_best_model: {' or '.join(names)}"
    return UsageError(Problem("E-TRAIN-013", what, "metric_for_best_model", watched, fix))
