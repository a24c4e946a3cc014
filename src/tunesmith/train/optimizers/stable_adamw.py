"""StableAdamW: AdamW whose step is clipped weight by weight, by Adafactor's rule (Wortsman et al., arXiv:2304.13013).

Where gradients are larger than the second moment expects (the root mean square of g / sqrt(v) is above 1), the learning
rate of that weight is divided by it, so `max_grad_norm: 0` can be had.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Unpack

import torch
from torch import Tensor

from tunesmith.train.optimizers.ask import Ask
from tunesmith.train.optimizers.base import AdamSettings, PerWeight, next_step

__all__ = ["StableAdamW", "make"]


class StableAdamW(PerWeight):
    def __init__(self, groups: Iterable[dict[str, Any]], **adam: Unpack[AdamSettings]) -> None:
        super().__init__(groups, adam)

    def update(self, weight: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        grad, step = weight.grad, next_step(state)
        assert grad is not None
        if step == 1:
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(grad), torch.zeros_like(grad)
        # Corrections of both moments are in their factors (section 3.5 of the paper).
        beta1, beta2 = ((beta**step - beta) / (beta**step - 1) for beta in group["betas"])
        state["exp_avg"].lerp_(grad, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        surprise = grad.square().div_(state["exp_avg_sq"].clamp(min=group["eps"] ** 2)).mean().sqrt()
        rate = group["lr"] / surprise.clamp(min=1)
        weight.mul_(1 - rate * group["weight_decay"])
        weight.sub_(rate * state["exp_avg"] / (state["exp_avg_sq"].sqrt() + group["eps"]))


def make(ask: Ask) -> StableAdamW:
    return StableAdamW(ask.groups(), **ask.adam)
