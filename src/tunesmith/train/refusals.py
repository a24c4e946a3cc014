"""What a training run refuses, in our words: errors of the Trainer as problems with a place and a fix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tunesmith.config.generation_checks import REPLY_FIGURES
from tunesmith.core.errors import DivergedError, MachineError, Problem, UsageError

__all__ = ["making_optimizer", "naming_overflow", "unknown_metric", "weights_fit"]


@contextmanager
def weights_fit(checkpoint: str) -> Iterator[None]:
    """Raises UsageError where the weights of a checkpoint have other shapes than those of the model."""
    try:
        yield
    except RuntimeError as error:
        if "size mismatch" not in str(error):
            raise
        what = "the weights of the checkpoint have other shapes than those of the run"
        got = next((line.strip() for line in str(error).splitlines() if "size mismatch" in line), None)
        fix = "write lora_rank and what else shapes weights as it was, or overwrite_output_dir: true to start afresh"
        raise UsageError(Problem("E-TRAIN-083", what, f"checkpoint: {checkpoint}", got, fix)) from error


@contextmanager
def making_optimizer(optim: Any) -> Iterator[None]:
    """Raises MachineError for a package that is missing, UsageError for settings that contradict each other."""
    try:
        yield
    except (ImportError, ValueError, TypeError, NotImplementedError) as error:
        missing = isinstance(error, ImportError)
        kind = MachineError if missing else UsageError
        raise kind(
            Problem(
                "E-TRAIN-010" if missing else "E-TRAIN-002",
                "the optimizer cannot be made",
                where=f"optim: {getattr(optim, 'value', optim)}",
                got=str(error),
                fix="install the package, or leave optim out" if missing else "change the key that is named",
            )
        ) from error


def unknown_metric(watched: str | None, metrics: Mapping[str, float]) -> UsageError | None:
    """An error where the metric to watch is none of the evaluation's."""
    if not watched or f"eval_{watched.removeprefix('eval_')}" in metrics:
        return None
    told = [name for name in metrics if name.endswith(("loss", "accuracy", *REPLY_FIGURES))]
    names = [name.removeprefix("eval_") for name in told]
    what = "the metric to watch is none of the evaluation's"
    fix = f"metric_for_best_model: {' or '.join(names)}"
    return UsageError(Problem("E-TRAIN-013", what, "metric_for_best_model", watched, fix))


@contextmanager
def naming_overflow(step: int) -> Iterator[None]:
    """Raises DivergedError for what `debug: underflow_overflow` stops at; it has printed what it saw."""
    try:
        yield
    except ValueError as error:
        if "DebugUnderflowOverflow" not in str(error):
            raise
        what, where = "a module computed inf or nan", f"step {step}; the lines above show the modules up to that one"
        fix = "look at the module's inputs and weights; lower learning_rate, or use bf16 instead of fp16"
        raise DivergedError(Problem("E-TRAIN-012", what, where, fix=fix)) from error
