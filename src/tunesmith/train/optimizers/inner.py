"""An optimizer that runs inside another one, on stand-ins of weights: a projection, a part, or a copy in float32.

It may be any optimizer that keeps what it knows in the states of weights. The states of a stand-in lie in the state of
its weight, under "inner", so they go into checkpoints with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from tunesmith.train.optimizers.base import PerWeight

__all__ = ["Make", "OverInner", "Part", "stand_in"]

Make: TypeAlias = Callable[[Sequence[Mapping[str, Any]]], Optimizer]
"""Groups -> the optimizer inside."""


@dataclass(frozen=True, slots=True)
class Part:
    """A stand-in with its gradient, the settings of its group, its states, and what is done once it was stepped."""

    stand_in: Parameter
    settings: Mapping[str, Any]
    state: dict[str, Any]
    finish: Callable[[], None] = lambda: None


class OverInner(PerWeight):
    """An optimizer that lets another one step stand-ins. `part(weight, state, group)` makes a stand-in."""

    def __init__(self, groups: Iterable[dict[str, Any]], defaults: Mapping[str, Any], make: Make) -> None:
        super().__init__(groups, defaults)
        self._inside = make([{"params": [Parameter(torch.zeros(1))]}])

    def part(self, weight: Any, state: dict[str, Any], group: Mapping[str, Any]) -> Part:
        raise NotImplementedError

    def update(self, weight: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        raise AssertionError("all stand-ins are stepped together")

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        assert closure is None, "no optimizer here evaluates a loss again"
        parts = [
            self.part(weight, self.state[weight], group)
            for group in self.param_groups
            for weight in group["params"]
            if weight.grad is not None
        ]
        if not parts:
            return
        inside = self._inside
        inside.state.clear()
        for one in parts:
            inside.state[one.stand_in] = one.state
        inside.param_groups = [
            {**inside.defaults, **settings, "params": stand_ins} for settings, stand_ins in _joined(parts)
        ]
        inside.step()
        for one in parts:
            one.finish()
        inside.state.clear()

    def plain(self, weight: Any, state: dict[str, Any], group: Mapping[str, Any]) -> Part:
        """The weight itself, stepped as the optimizer inside would."""
        settings = {"lr": group["lr"], "weight_decay": group["weight_decay"]}
        return Part(weight, settings, state.setdefault("inner", {}))


def _joined(parts: Sequence[Part]) -> list[tuple[Mapping[str, Any], list[Parameter]]]:
    """Stand-ins with the same settings make one group, which some optimizers step in one go."""
    found: dict[Any, tuple[Mapping[str, Any], list[Parameter]]] = {}
    for one in parts:
        found.setdefault(tuple(sorted(one.settings.items())), (one.settings, []))[1].append(one.stand_in)
    return list(found.values())


def stand_in(value: Tensor, grad: Tensor) -> Parameter:
    """A weight to be stepped, with its gradient of the same shape."""
    made = Parameter(value, requires_grad=True)
    made.grad = grad
    return made
