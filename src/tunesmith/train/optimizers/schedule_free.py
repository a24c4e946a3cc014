"""Schedule-free AdamW, SGD and RAdam: averaging takes the place of a schedule (Defazio et al., arXiv:2405.15682).

Gradients are taken at y = (1 - beta) z + beta x, where z makes the steps and x is the weighted mean of all z. While it
trains, the model holds y. `eval()` puts x in its place, which is what is judged and saved, and keeps y in the state, so
that `train()` brings back the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Unpack

import torch
from torch import Tensor

from tunesmith.train.optimizers.ask import Ask
from tunesmith.train.optimizers.base import AdamSettings, PerWeight, next_step

__all__ = ["ScheduleFree", "ScheduleFreeRadam", "ScheduleFreeSgd", "adamw", "radam", "sgd"]


class ScheduleFree(PerWeight):
    """AdamW. `r`: later steps weigh more, by step^r; `weight_lr_power`: and those of a higher rate, by lr^power."""

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        weight_lr_power: float = 2.0,
        r: float = 0.0,
        **adam: Unpack[AdamSettings],
    ) -> None:
        self.power, self.r = weight_lr_power, r
        super().__init__(groups, adam)

    def direction(self, grad: Tensor, state: dict[str, Any], step: int, group: Mapping[str, Any]) -> Tensor:
        """The step of rate 1, before weight decay."""
        beta2 = group["betas"][1]
        second = state.setdefault("exp_avg_sq", torch.zeros_like(grad))
        second.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        return grad / (second / (1 - beta2**step)).sqrt_().add_(group["eps"])

    def factor(self, step: int, group: Mapping[str, Any]) -> float:
        """Of the learning rate."""
        return 1.0

    def update(self, weight: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        assert weight.grad is not None
        assert "y" not in state, "train() comes before a step"
        step = next_step(state)
        z = state.setdefault("z", weight.detach().clone())
        rate = group["lr"] * self.factor(step, group)
        state["lr_max"] = max(rate, state.get("lr_max", 0.0))
        share = step**self.r * state["lr_max"] ** self.power
        state["shares"] = state.get("shares", 0.0) + share
        new = share / state["shares"] if state["shares"] else 0.0
        direction = self.direction(weight.grad, state, step, group).add(weight, alpha=group["weight_decay"])
        beta1 = group["betas"][0]
        weight.lerp_(z, new).add_(direction, alpha=rate * (beta1 * (1 - new) - 1))
        z.sub_(direction, alpha=rate)

    @torch.no_grad()
    def eval(self) -> None:
        """The model holds x."""
        for weight, state, beta1 in self._stepped():
            if "y" not in state:
                state["y"] = weight.detach().clone()
                weight.lerp_(state["z"], 1 - 1 / beta1)

    @torch.no_grad()
    def train(self) -> None:
        """The model holds y."""
        for weight, state, _ in self._stepped():
            if "y" in state:
                weight.copy_(state.pop("y"))

    def _stepped(self) -> Iterable[tuple[Tensor, dict[str, Any], float]]:
        for group in self.param_groups:
            for weight in group["params"]:
                if "z" in (state := self.state.get(weight, {})):
                    yield weight, state, group["betas"][0]


class ScheduleFreeSgd(ScheduleFree):
    """SGD; the first of `betas` is its momentum."""

    def direction(self, grad: Tensor, state: dict[str, Any], step: int, group: Mapping[str, Any]) -> Tensor:
        return grad


class ScheduleFreeRadam(ScheduleFree):
    """RAdam, which warms up by itself: as long as the second moment says little, no step is made."""

    def factor(self, step: int, group: Mapping[str, Any]) -> float:
        beta2 = group["betas"][1]
        longest = 2 / (1 - beta2) - 1
        length = longest - 2 * step * beta2**step / (1 - beta2**step)
        if length <= 4:
            return 0.0
        return math.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))


def adamw(ask: Ask) -> ScheduleFree:
    return ScheduleFree(ask.groups(), **ask.adam, **ask.options)


def radam(ask: Ask) -> ScheduleFree:
    return ScheduleFreeRadam(ask.groups(), **ask.adam, **ask.options)


def sgd(ask: Ask) -> ScheduleFree:
    return ScheduleFreeSgd(ask.groups(), **ask.adam, **ask.options)
