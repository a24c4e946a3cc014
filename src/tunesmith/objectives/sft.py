"""Supervised fine-tuning: cross-entropy at the tokens that the model is to write.

B rows, T positions, N trained positions. The model's forward ends in the loss (`models/loss_forward.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from tunesmith.core.types import Chat
from tunesmith.objectives.base import LossOutput, Needs, Objective

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["IGNORE", "SupervisedFineTuning", "model_inputs", "trained"]

IGNORE = -100  # label of a position that is not trained; the field's convention


def trained(batch: Mapping[str, Tensor]) -> dict[str, Tensor | None]:
    """What the model's forward is told of the loss: `loss_positions` [N, 2], `loss_targets` [N] and `loss_weights` [N]
    (None: all 1). `labels` and, if there are any, `weights` of the batch are [B, T].

    The hidden state at position t predicts the token at t + 1.
    """
    labels = batch["labels"][:, 1:]
    positions = (labels != IGNORE).nonzero()
    row, place = positions.unbind(1)
    weights = batch["weights"][:, 1:][row, place] if "weights" in batch else None
    return {"loss_positions": positions, "loss_targets": labels[row, place], "loss_weights": weights}


def model_inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """What of a batch the model reads. A flat one has the borders of its sequences in all forms that kinds of attention
    ask for, and no mask."""
    found = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids") if name in batch}
    if "bounds" in batch:
        bounds, borders = batch["bounds"], batch["cu_seqlens"]
        longest = max(end - start for start, end in pairwise(bounds))
        found |= {"bounds": bounds, "cu_seq_lens_q": borders, "cu_seq_lens_k": borders}
        found |= {"max_length_q": longest, "max_length_k": longest}
    return found


class SupervisedFineTuning(Objective):
    """Units are trained tokens, each by its weight."""

    needs: ClassVar[Needs] = Needs(example=Chat)
    unit: ClassVar[str] = "tokens"

    def count_units(self, batch: Mapping[str, Any]) -> float:
        trained = batch["labels"][:, 1:] != IGNORE
        return float(batch["weights"][:, 1:][trained].double().sum() if "weights" in batch else trained.sum())

    def compute(self, model: Any, batch: Mapping[str, Any]) -> LossOutput:
        asked = trained(batch)
        found = model(**model_inputs(batch), **asked)
        targets, weights = asked["loss_targets"], asked["loss_weights"]
        assert targets is not None
        count = targets.new_tensor(len(targets)).double()
        units = count if weights is None else weights.double().sum()
        metrics = {"accuracy": found["correct"].sum().double()} if self.config.compute_accuracy else {}
        return LossOutput(found["loss"], units, count, metrics)
