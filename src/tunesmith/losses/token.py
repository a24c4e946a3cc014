"""Cross-entropy over tokens, as a sum, and the number of right guesses.

N tokens, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

__all__ = ["count_correct", "cross_entropy_sum"]


def cross_entropy_sum(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sum over N of -weight * log softmax(logits)[target], in nats, computed in float32.

    logits [N, V], targets [N] (int64), weights [N] (float32; None: all 1). N = 0 gives a zero that still has a
    gradient.
    """
    if weights is None:
        return cross_entropy(logits.float(), targets, reduction="sum")
    return (cross_entropy(logits.float(), targets, reduction="none") * weights).sum()


def count_correct(logits: Tensor, targets: Tensor) -> Tensor:
    """How many of the N targets are the most likely token. logits [N, V], targets [N] -> float64 scalar."""
    with torch.no_grad():
        return (logits.argmax(dim=-1) == targets).sum().double()
