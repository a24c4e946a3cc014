"""Losses that look at all pairs of an optimizer step, in any split of the step into micro-batches and ranks.

A loss such as AOT compares ranks within a sample of pairs, so the mean over micro-batches is another loss. Its gradient
with respect to the model is that of

    sum_i g_i * c_i(model) + h_i * r_i(model)

with the constants g, h = dL/dc, dL/dr of the loss of all pairs at once. So the model runs twice: without gradient for
the scores of all pairs, which are gathered, and then micro-batch by micro-batch with gradient
(https://arxiv.org/abs/2101.06983). The first pass is without dropout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tunesmith.losses.preference import PairScores

__all__ = ["WholeStep"]


@dataclass(frozen=True, slots=True)
class WholeStep:
    """`loss_sum`: scalar, of all P pairs. `chosen`, `rejected`: its gradient [P] with respect to their sums of log
    probabilities."""

    loss_sum: Tensor
    chosen: Tensor
    rejected: Tensor

    @classmethod
    def of(cls, losses: Callable[[PairScores], Tensor], scores: PairScores) -> WholeStep:
        """`scores` of all pairs of the step, without gradient, in any order; at least one pair."""
        chosen, rejected = (score.detach().requires_grad_() for score in (scores.chosen, scores.rejected))
        with torch.enable_grad():
            total = losses(replace(scores, chosen=chosen, rejected=rejected)).sum()
        # `allow_unused`: fine-tuning on the chosen answer does not read the other.
        found = torch.autograd.grad(total, (chosen, rejected), allow_unused=True)
        gradients = (torch.zeros_like(chosen) if gradient is None else gradient for gradient in found)
        return cls(total.detach(), *gradients)
