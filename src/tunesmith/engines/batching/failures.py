"""What becomes of an exception in the engine's thread: an error of ours, without the frames, which hold tensors."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.core.errors import DataError, MachineError, Problem, TunesmithError
from tunesmith.core.log import get_logger
from tunesmith.models.out_of_memory import is_out_of_memory

__all__ = ["Failure", "failure_of", "no_memory", "not_finite"]


@dataclass(frozen=True, slots=True)
class Failure:
    """What is kept of an exception. `memory`: it ran out."""

    memory: bool
    problem: TunesmithError


def failure_of(error: Exception) -> Failure:
    if isinstance(error, TunesmithError):
        return Failure(False, error)
    if is_out_of_memory(error):
        return Failure(True, no_memory())
    get_logger().error("a step of the engine failed", exc_info=error)
    got = f"{type(error).__name__}: {error}"
    return Failure(False, TunesmithError(Problem("E-ENGINE-007", "this reply could not be computed", got=got)))


def no_memory(fix: str = "shorten it, or raise kv_cache_gb where memory is free") -> MachineError:
    return MachineError(Problem("E-ENGINE-008", "there is no memory for this request, even alone", fix=fix))


def not_finite(model: str, lacking: str = "there is nothing to choose a word by") -> DataError:
    """`lacking`: what there is not for that reason."""
    what = f"the model computes values that are not finite, so {lacking}"
    fix = "its weights are broken, or too large for infer_dtype: get it again, or use an earlier checkpoint"
    return DataError(Problem("E-ENGINE-003", what, where=model, fix=fix))
