"""What our optimizers have in common: they keep all that they know in the states of single weights.

So a step may be made weight by weight (train/optimizer_in_backward.py), a checkpoint holds all of it, and what is drawn
by chance follows from the seed, the weight's number and its step.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["AdamSettings", "PerWeight", "adam_direction", "decay", "generator", "next_step"]


class AdamSettings(TypedDict):
    """What a group has that does not say otherwise, of an optimizer with two moments."""

    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: NotRequired[float]


class PerWeight(Optimizer):
    """An optimizer whose `update(weight, state, group)` changes one weight. A group is what `torch.optim` calls so."""

    def __init__(self, groups: Iterable[dict[str, Any]], defaults: Mapping[str, Any]) -> None:
        super().__init__(groups, {"weight_decay": 0.0, **defaults})

    @abstractmethod
    def update(self, weight: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        """Change `weight` in place by its gradient, `weight.grad` of the same shape."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        assert closure is None, "no optimizer here evaluates a loss again"
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self.update(weight, self.state[weight], group)

    def load_state_dict(self, state_dict: Any) -> None:
        """States keep the types of numbers that they were saved with; torch would give them that of the weight."""
        super().load_state_dict(state_dict)
        weights = [weight for group in self.param_groups for weight in group["params"]]
        numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
        for weight, number in zip(weights, numbers, strict=True):
            if number in state_dict["state"]:
                self.state[weight] = _copied(state_dict["state"][number], weight.device)


def _copied(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to(device, copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(one, device) for key, one in value.items()}
    return value


def next_step(state: dict[str, Any]) -> int:
    """Counts a step of a weight, from 1 on."""
    step: int = state.get("step", 0) + 1
    state["step"] = step
    return step


def decay(weight: Tensor, group: Mapping[str, Any]) -> None:
    """Decoupled weight decay, before the update, as torch's AdamW has it."""
    if group["weight_decay"]:
        weight.mul_(1 - group["lr"] * group["weight_decay"])


def adam_direction(grad: Tensor, state: dict[str, Any], step: int, group: Mapping[str, Any]) -> Tensor:
    """Adam's step of rate 1 (Kingma and Ba, arXiv:1412.6980), with both corrections; same shape as `grad`. Moments are
    `exp_avg` and `exp_avg_sq` of `state`."""
    beta1, beta2 = group["betas"]
    if "exp_avg" not in state:
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(grad), torch.zeros_like(grad)
    state["exp_avg"].lerp_(grad, 1 - beta1)
    state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    scale = state["exp_avg_sq"].sqrt().div_(math.sqrt(1 - beta2**step)).add_(group["eps"])
    return state["exp_avg"].div(1 - beta1**step).div_(scale)


def generator(device: torch.device, *numbers: int) -> torch.Generator:
    """A generator that follows from `numbers` alone: the seed of the run, a weight's number, a step."""
    mixed = 0
    for number in numbers:  # splitmix64, so that neighbours have nothing in common
        mixed = (mixed + number + 0x9E3779B97F4A7C15) % 2**64
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) % 2**64
        mixed ^= mixed >> 31
    made = torch.Generator(device if device.type != "mps" else "cpu")
    made.manual_seed(mixed % 2**63)
    return made
