"""APOLLO: AdamW in a low-rank space tells how to scale a gradient (Zhu et al., arXiv:2412.05270, Algorithm 1).

The gradient G [m, n] is projected to R. Adam's moments of R give a step S there. Each channel (row or column, the
longer dimension) of G is scaled by |S| / |R| of that channel; with `tensor` the whole by one number, which is
APOLLO-Mini at rank 1. The norm of the scaled gradient may grow by 1% a step (the limiter of Fira). The weight moves by
it, times the square root of `scale`.

A random space is drawn anew from (seed, number of the weight, step), and not kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Unpack

import torch
from torch import Tensor

from tunesmith.train.optimizers.ask import Ask
from tunesmith.train.optimizers.base import AdamSettings, PerWeight, adam_direction, decay, generator, next_step
from tunesmith.train.optimizers.parts import target_matrices
from tunesmith.train.optimizers.projection import Space, random_space, singular_space

__all__ = ["Apollo", "make"]

_GROWTH = 1.01
_TINY = 1e-8


class Apollo(PerWeight):
    """Groups with `projected: True` hold matrices that are projected; others are stepped by AdamW. `proj` is `random`
    or `svd`, `kind` is `std`, `left` or `right` (projection.py)."""

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        rank: int,
        interval: int,
        scale: float,
        proj: str,
        kind: str,
        scale_type: str,
        seed: int,
        **adam: Unpack[AdamSettings],
    ) -> None:
        self.rank, self.interval, self.scale = rank, interval, scale
        self.proj, self.kind, self.scale_type, self.seed = proj, kind, scale_type, seed
        super().__init__(groups, {**adam, "projected": False})
        weights = [weight for group in self.param_groups for weight in group["params"]]
        self._numbers = {id(weight): number for number, weight in enumerate(weights)}

    def update(self, weight: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        assert weight.grad is not None
        step = next_step(state)
        if not group["projected"]:
            direction = adam_direction(weight.grad, state, step, group)
        else:
            direction = self._scaled(weight, state, step, group)
        decay(weight, group)
        weight.add_(direction, alpha=-group["lr"])

    def _scaled(self, weight: Tensor, state: dict[str, Any], step: int, group: Mapping[str, Any]) -> Tensor:
        assert weight.grad is not None
        low = self._space(weight, state, step).down(weight.grad)
        direction = adam_direction(low, state, step, group)
        if self.scale_type == "tensor":
            factor = torch.linalg.vector_norm(direction) / (torch.linalg.vector_norm(low) + _TINY)
        else:
            short = 0 if low.shape[0] < low.shape[1] else 1
            norms = [torch.linalg.vector_norm(one, dim=short, keepdim=True) for one in (direction, low)]
            factor = norms[0] / (norms[1] + _TINY)
        scaled = weight.grad * factor
        norm = torch.linalg.vector_norm(scaled)
        if "norm" in state:
            limit = (norm / (state["norm"] + _TINY)).clamp(min=_GROWTH) / _GROWTH
            scaled, norm = scaled / limit, norm / limit
        state["norm"] = norm
        return scaled * math.sqrt(self.scale)

    def _space(self, weight: Tensor, state: dict[str, Any], step: int) -> Space:
        """The space of this step; it is another one every `interval` steps."""
        began = (step - 1) // self.interval * self.interval
        if self.proj == "random":
            chance = generator(weight.device, self.seed, self._numbers[id(weight)], began)
            return random_space(weight.shape, self.kind, self.rank, chance, weight.device)
        assert weight.grad is not None
        if began == step - 1:
            found = singular_space(weight.grad, self.kind, self.rank)
            state |= {name: side for name, side in (("left", found.left), ("right", found.right)) if side is not None}
        return Space(state.get("left"), state.get("right"))


def make(ask: Ask) -> Apollo:
    config = ask.config
    chosen = target_matrices(ask.model, config.apollo_target, "apollo_target")
    return Apollo(
        ask.groups(lambda name, weight: {"projected": name in chosen}),
        **ask.adam,
        rank=config.apollo_rank,
        interval=config.apollo_update_interval,
        scale=config.apollo_scale,
        proj=config.apollo_proj,
        kind=config.apollo_proj_type,
        scale_type=config.apollo_scale_type,
        seed=ask.seed,
    )
