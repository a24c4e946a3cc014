"""Lion: the sign of a momentum, one state for each weight (Chen et al., arXiv:2302.06675, Program 1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from tunesmith.train.optimizers.ask import Ask
from tunesmith.train.optimizers.base import PerWeight, decay

__all__ = ["Lion", "make"]


class Lion(PerWeight):
    def __init__(
        self, groups: Iterable[dict[str, Any]], *, lr: float, betas: tuple[float, float], weight_decay: float = 0.0
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    def update(self, weight: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        grad = weight.grad
        assert grad is not None
        beta1, beta2 = group["betas"]
        momentum = state.setdefault("exp_avg", torch.zeros_like(grad))
        decay(weight, group)
        weight.add_(momentum.lerp(grad, 1 - beta1).sign_(), alpha=-group["lr"])
        momentum.lerp_(grad, 1 - beta2)


def make(ask: Ask) -> Lion:
    settings = {name: value for name, value in ask.adam.items() if name != "eps"}
    return Lion(ask.groups(), **settings)
