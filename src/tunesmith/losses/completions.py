"""From tokens to answers: what losses of preferences read of the log probabilities of tokens.

N tokens of S answers, one answer behind the other; V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["alignment", "answer_sums", "tail_weights"]


def answer_sums(values: Tensor, lengths: Tensor) -> Tensor:
    """Sums [S] of values [N] over each answer, differentiable. lengths [S], int64: tokens of each; they add up to N."""
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths, output_size=len(values))
    return values.new_zeros(len(lengths)).index_add(0, owner, values)


def tail_weights(lengths: Tensor, shared: Tensor, alpha: float) -> Tensor:
    """[N] float32: 1 for the first `shared` [S] tokens of each answer and alpha for the others.

    With `shared` the length of the shorter answer of a pair this is LD-DPO, https://arxiv.org/abs/2409.06411:
    log probabilities of tokens times these weights, of the policy and of the reference alike. (LlamaFactory
    leaves the reference as it is, so that an untrained model is not its own reference.)
    """
    starts = (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
    place = torch.arange(len(starts), device=lengths.device) - starts
    return torch.where(place < shared.repeat_interleave(lengths), 1.0, alpha)


def alignment(logits: Tensor, log_probs: Tensor) -> Tensor:
    """log p[t] - log sum_v p[v] ** 2 [N], without gradient: how likely a token is, against a draw from the model.

    logits [N, V], any float type; log_probs [N] of the targets. The mean over an answer is its `alignment` for WPO,
    https://arxiv.org/abs/2406.11827, eq. 2. Of N rows it needs no more than the rows, so logits may come in parts.
    """
    with torch.no_grad():
        every = logits.float()
        collision = (2 * every).logsumexp(-1) - 2 * every.logsumexp(-1)
        return log_probs.detach().float() - collision
