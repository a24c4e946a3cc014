"""Adam-mini: AdamW with one second moment for each block of a weight (Zhang et al., arXiv:2406.16793).

Blocks are what the Hessian of a Transformer is nearly block-diagonal in: the heads of queries and keys, the rows of
every other matrix (tokens of embeddings, neurons of the rest), the whole of a vector.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Unpack

import torch
from torch import Tensor

from tunesmith.train.optimizers.ask import Ask
from tunesmith.train.optimizers.base import AdamSettings, PerWeight, decay, next_step
from tunesmith.train.optimizers.parts import blocks_of

__all__ = ["AdamMini", "make"]


class AdamMini(PerWeight):
    """A group's `blocks` says into how many blocks of rows each of its weights is cut; 0: into its rows."""

    def __init__(self, groups: Iterable[dict[str, Any]], **adam: Unpack[AdamSettings]) -> None:
        super().__init__(groups, {**adam, "blocks": 1})

    def update(self, weight: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        grad, step = weight.grad, next_step(state)
        assert grad is not None
        beta1, beta2 = group["betas"]
        blocks = group["blocks"] or weight.shape[0]
        if step == 1:
            state["exp_avg"] = torch.zeros_like(grad)
            state["exp_avg_sq"] = torch.zeros(blocks, 1, dtype=grad.dtype, device=grad.device)
        state["exp_avg"].lerp_(grad, 1 - beta1)
        state["exp_avg_sq"].lerp_(grad.reshape(blocks, -1).square().mean(1, keepdim=True), 1 - beta2)
        scale = state["exp_avg_sq"].sqrt().div_(math.sqrt(1 - beta2**step)).add_(group["eps"])
        decay(weight, group)
        direction = state["exp_avg"].reshape(blocks, -1) / scale
        weight.add_(direction.reshape(weight.shape), alpha=-group["lr"] / (1 - beta1**step))


def make(ask: Ask) -> AdamMini:
    blocks = blocks_of(ask.model)
    return AdamMini(ask.groups(lambda name, weight: {"blocks": blocks(name, weight)}), **ask.adam)
