"""Before the first step: the quick ways of this run against transformers' own, on rows of this run and real weights.

Loss and gradient of a few short rows are computed twice: as the run will, and padded, with plain attention and the
logits of all positions. Nothing is left behind: no gradient, no state of chance. What differs is not used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tunesmith.core.errors import MachineError, Problem
from tunesmith.core.log import get_logger
from tunesmith.data.collate import FlatCollator, PaddingCollator
from tunesmith.data.pack import PackedDataset
from tunesmith.models.attention import attention_of
from tunesmith.models.loss_forward import LossForward

if TYPE_CHECKING:
    from tunesmith.config import RunPlan
    from tunesmith.config.model import ModelConfig
    from tunesmith.data.dataset import TokenDataset
    from tunesmith.models.fast_path import FastPath
    from tunesmith.objectives import Objective

__all__ = ["SelfProof", "give_up", "prove_itself"]

_LOOKED_AT = 64  # rows, of which the shortest are taken
_ROWS, _TOKENS = 3, 512


@dataclass(frozen=True, slots=True)
class SelfProof:
    """Relative differences of the loss, and of the gradient: of the vector in float32, of its norm in half precision,
    where single elements are noise."""

    rows: int
    tokens: int
    loss_error: float
    gradient_error: float
    loss_bound: float
    gradient_bound: float

    @property
    def holds(self) -> bool:
        return self.loss_error <= self.loss_bound and self.gradient_error <= self.gradient_bound

    def __str__(self) -> str:
        return (
            f"loss differs by {self.loss_error:.1e} (at most {self.loss_bound:g}), gradient by "
            f"{self.gradient_error:.1e} (at most {self.gradient_bound:g}), on {self.rows} rows, {self.tokens:,} tokens"
        )

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "holds": self.holds}


def prove_itself(
    model: Any, objective: Objective, samples: TokenDataset | PackedDataset, plan: RunPlan, pad_id: int
) -> SelfProof | None:
    """None where no row is short enough, or nothing of one is trained."""
    rows = _short_rows(samples)
    if not rows:
        return None
    quick = FlatCollator(pad_id) if plan.batches == "flat" else PaddingCollator(pad_id)
    device = torch.device(plan.device)
    arithmetic: AbstractContextManager[Any] = nullcontext()
    if plan.autocast:
        arithmetic = torch.autocast(device.type, getattr(torch, plan.autocast))
    training = model.training
    model.eval()  # no dropout, and no activations that are computed again
    try:
        with arithmetic:
            found, gradient = _loss_and_gradient(model, objective, _on(device, quick(rows)))
            with _plainly(model):
                wanted, other = _loss_and_gradient(model, objective, _on(device, PaddingCollator(pad_id)(rows)))
    finally:
        model.train(training)
    half = plan.autocast is not None or plan.dtype != "float32"
    size = _norm(other)
    if half:
        off = abs(_norm(gradient) - size)
    else:
        for one, reference in zip(gradient, other, strict=True):
            if one is not None:
                one.sub_(reference)
        off = _norm(gradient)
    bounds = (2e-3, 5e-3) if half else (1e-5, 1e-4)
    tokens = sum(len(row["input_ids"]) for row in rows)
    return SelfProof(len(rows), tokens, abs(found - wanted) / max(abs(wanted), 1e-9), off / max(size, 1e-9), *bounds)


def give_up(model: Any, fast: FastPath, proof: SelfProof, config: ModelConfig) -> FastPath:
    """Train as transformers does from now on. Raises MachineError where the config requires the quick ways."""
    if config.fast_path == "require":
        what = "the quick ways do not give what transformers computes, on rows of this run"
        where = f"model_name_or_path: {config.model_name_or_path}"
        raise MachineError(Problem("E-TRAIN-018", what, where, str(proof), "fast_path: auto trains without them"))
    get_logger().warning("quick ways are not used, they differ from transformers: %s", proof)
    how = LossForward.within(model)
    how.way = "full"
    if fast.flat:
        fast = fast.without_flat("they did not prove themselves")
        _language_model(model).set_attn_implementation(fast.attention)
    return replace(fast, loss="full")


def _language_model(model: Any) -> Any:
    """The language model that `model` is or wraps."""
    return next(module for module in model.modules() if hasattr(module, "loss_forward"))


def _short_rows(samples: TokenDataset | PackedDataset) -> list[dict[str, np.ndarray]]:
    tokens = samples.pieces if isinstance(samples, PackedDataset) else samples
    near = np.arange(min(len(tokens), _LOOKED_AT))
    near = near[(tokens.trained_counts[near] > 0) & (tokens.lengths[near] > 1)]
    order = near[np.argsort(tokens.lengths[near], kind="stable")][:_ROWS]
    fits = order[np.cumsum(tokens.lengths[order]) <= _TOKENS]
    return [tokens[int(number)] for number in fits]


def _on(device: torch.device, batch: dict[str, Any]) -> dict[str, Any]:
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}


@contextmanager
def _plainly(model: Any) -> Iterator[None]:
    """The model with transformers' plain attention and the logits of all positions."""
    language_model = _language_model(model)
    how: LossForward = language_model.loss_forward
    way, attention = how.way, attention_of(language_model)
    how.way = "full"
    language_model.set_attn_implementation("eager")
    try:
        yield
    finally:
        how.way = way
        language_model.set_attn_implementation(attention)


def _loss_and_gradient(model: Any, objective: Objective, batch: dict[str, Any]) -> tuple[float, list[Tensor | None]]:
    parameters = [one for one in model.parameters() if one.requires_grad]
    output = objective.compute(model, batch)
    loss = output.loss_sum / output.units.clamp(min=1)
    return float(loss.detach()), list(torch.autograd.grad(loss, parameters, allow_unused=True))


def _norm(gradient: list[Tensor | None]) -> float:
    return float(sum(float(one.double().square().sum()) for one in gradient if one is not None)) ** 0.5
