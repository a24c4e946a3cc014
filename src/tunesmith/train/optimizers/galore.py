"""GaLore: an optimizer sees gradients projected to a low rank, so its states are small (Zhao et al., arXiv:2403.03507).

Every `interval` steps of a weight [m, n] its space is found anew, from the singular vectors of the gradient. The step
that the optimizer inside makes in the space is projected back and scaled. Weight decay is that of the weight itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from tunesmith.train.optimizers.ask import Ask
from tunesmith.train.optimizers.base import decay, next_step
from tunesmith.train.optimizers.inner import Make, OverInner, Part, stand_in
from tunesmith.train.optimizers.parts import target_matrices
from tunesmith.train.optimizers.projection import Space, singular_space

__all__ = ["GaLore", "make"]


class GaLore(OverInner):
    """Groups with `projected: True` hold matrices that are projected; others are stepped as they are. `kind` is `std`,
    `reverse_std`, `left`, `right` or `full` (projection.py)."""

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        make: Make,
        *,
        lr: float,
        rank: int,
        interval: int,
        scale: float,
        kind: str,
        weight_decay: float = 0.0,
    ) -> None:
        self.rank, self.interval, self.scale, self.kind = rank, interval, scale, kind
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "projected": False}, make)

    def part(self, weight: Any, state: dict[str, Any], group: Mapping[str, Any]) -> Part:
        if not group["projected"]:
            return self.plain(weight, state, group)
        if (next_step(state) - 1) % self.interval == 0:
            found = singular_space(weight.grad, self.kind, self.rank)
            state |= {name: side for name, side in (("left", found.left), ("right", found.right)) if side is not None}
        space = Space(state.get("left"), state.get("right"))
        low: Tensor = space.down(weight.grad)
        made = stand_in(torch.zeros_like(low), low)

        def finish() -> None:
            decay(weight, group)
            weight.add_(space.up(made.detach()), alpha=self.scale)

        return Part(made, {"lr": group["lr"], "weight_decay": 0.0}, state.setdefault("inner", {}), finish)


def make(ask: Ask) -> GaLore:
    config = ask.config
    chosen = target_matrices(ask.model, config.galore_target, "galore_target")
    return GaLore(
        ask.groups(lambda name, weight: {"projected": name in chosen}),
        ask.inside,
        lr=ask.adam["lr"],
        weight_decay=ask.adam["weight_decay"],
        rank=config.galore_rank,
        interval=config.galore_update_interval,
        scale=config.galore_scale,
        kind=config.galore_proj_type,
    )
