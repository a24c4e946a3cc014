"""From tokens to answers: what tokens count in the log probability of an answer.

N tokens of S answers, one answer behind the other.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["tail_weights"]


def tail_weights(lengths: Tensor, shared: Tensor, alpha: float) -> Tensor:
    """[N] float32: 1 for the first `shared` [S] tokens of each answer and alpha for the others.

    With `shared` the length of the shorter answer of a pair this is LD-DPO, https://arxiv.org/abs/2409.06411:
    log probabilities of tokens times these weights, of the policy and of the reference alike. (LlamaFactory
    leaves the reference as it is, so that an untrained model is not its own reference.)
    """
    starts = (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
    place = torch.arange(len(starts), device=lengths.device) - starts
    return torch.where(place < shared.repeat_interleave(lengths), 1.0, alpha)
