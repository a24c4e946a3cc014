"""Supervised fine-tuning: cross-entropy at the tokens that the model is to write.

B rows, T positions, K kept positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from tunesmith.core.types import Chat
from tunesmith.losses.token import count_correct, cross_entropy_sum
from tunesmith.objectives.base import LossOutput, Needs, Objective

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["IGNORE", "SupervisedFineTuning", "trained_logits"]

IGNORE = -100  # label of a position that is not trained; the field's convention
_INPUTS = ("input_ids", "attention_mask", "position_ids")


def trained_logits(model: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits [N, V], targets [N] and weights [N] (None: all 1) of the trained positions of a batch.

    `input_ids`, `labels` and, if there are any, `attention_mask`, `position_ids`, `weights` are [B, T]. The logit at
    position t predicts the token at t + 1. The head runs only over the columns in which some row is trained.
    """
    targets = batch["labels"][:, 1:]  # [B, T-1]
    columns = (targets != IGNORE).any(dim=0).nonzero().squeeze(-1)  # [K]
    if columns.numel() == 0:  # nothing to learn here, but DDP wants a gradient of every rank
        columns = columns.new_zeros(1)
    inputs = {name: batch[name] for name in _INPUTS if name in batch}
    output = model(**inputs, logits_to_keep=columns, use_cache=False)
    targets = targets[:, columns]  # [B, K]
    trained = targets != IGNORE
    weights = batch["weights"][:, 1:][:, columns][trained] if "weights" in batch else None
    return output.logits[trained], targets[trained], weights


class SupervisedFineTuning(Objective):
    """Units are trained tokens, each by its weight."""

    needs: ClassVar[Needs] = Needs(example=Chat)
    unit: ClassVar[str] = "tokens"

    def count_units(self, batch: Mapping[str, Any]) -> float:
        trained = batch["labels"][:, 1:] != IGNORE
        return float(batch["weights"][:, 1:][trained].double().sum() if "weights" in batch else trained.sum())

    def compute(self, model: Any, batch: Mapping[str, Any]) -> LossOutput:
        logits, targets, weights = trained_logits(model, batch)
        metrics = {"accuracy": count_correct(logits, targets)} if self.config.compute_accuracy else {}
        count = targets.new_tensor(len(targets)).double()
        units = count if weights is None else weights.double().sum()
        return LossOutput(cross_entropy_sum(logits, targets, weights), units, count, metrics)
