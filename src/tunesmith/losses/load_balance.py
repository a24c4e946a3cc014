"""How unevenly a mixture of experts sends its tokens: the auxiliary loss of the Switch Transformer
(https://arxiv.org/abs/2101.03961, eq. 4 to 6), for k experts a token and all layers together, as transformers has it.

    loss = E * sum_e f_e * P_e
    f_e    experts e among the k of a token, summed over tokens and layers, over the number of tokens times layers
    P_e    mean of the router's probability of e over tokens and layers; only this has a gradient

E experts, k chosen of them, N tokens. It is k where all are chosen alike. A product of means: that of a batch is not
the mean of those of its parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["load_balance"]


def load_balance(logits: Sequence[Tensor], chosen: int, mask: Tensor | None = None) -> Tensor:
    """logits [N, E] of each layer's router, `chosen` = k, mask [B, T] of the N = B * T tokens (0: padding, which does
    not count) -> []. With no token at all it is 0."""
    experts = logits[0].shape[-1]
    real = None if mask is None else mask.reshape(-1, 1).to(torch.float32)
    sent = probability = tokens = torch.zeros((), device=logits[0].device)
    for layer in logits:
        shares = layer.float().softmax(dim=-1)  # [N, E]
        taken = torch.zeros_like(shares).scatter_(1, shares.topk(chosen, dim=-1).indices, 1.0)
        if real is not None:
            shares, taken = shares * real, taken * real
        sent, probability = sent + taken.detach().sum(0), probability + shares.sum(0)
        tokens = tokens + (len(layer) if real is None else real.sum())
    count = tokens.clamp(min=1)
    return experts * (sent / count * (probability / count)).sum()
