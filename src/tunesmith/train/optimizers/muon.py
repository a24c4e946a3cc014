"""Muon: momentum of hidden matrices made orthogonal (Jordan, kellerjordan.github.io/posts/muon), AdamW for the rest.

As Moonshot trains with it (arXiv:2502.16982): the step is scaled to the size of AdamW's, by 0.2 sqrt(max(m, n)), and
weights decay, so the learning rate is that of AdamW.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Unpack

import torch
from torch import Tensor

from tunesmith.train.optimizers.ask import Ask
from tunesmith.train.optimizers.base import AdamSettings, PerWeight, adam_direction, decay, next_step
from tunesmith.train.optimizers.parts import hidden_matrices

__all__ = ["Muon", "make", "orthogonal"]

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration, chosen for its slope at 0: singular values end near 1, within 0.3."""
_RMS = 0.2
"""Root mean square of AdamW's usual step, which Muon's is scaled to."""


class Muon(PerWeight):
    """Groups with `matrices: True` hold weights [m, n] that are stepped by Muon."""

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        **adam: Unpack[AdamSettings],
    ) -> None:
        self.momentum, self.nesterov, self.ns_steps = momentum, nesterov, ns_steps
        super().__init__(groups, {**adam, "matrices": False})

    def update(self, weight: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        grad = weight.grad
        assert grad is not None
        if not group["matrices"]:
            direction = adam_direction(grad, state, next_step(state), group)
        else:
            momentum = state.setdefault("momentum", torch.zeros_like(grad))
            momentum.lerp_(grad, 1 - self.momentum)
            sought = grad.lerp(momentum, self.momentum) if self.nesterov else momentum
            direction = orthogonal(sought, self.ns_steps)
        decay(weight, group)
        size = _RMS * math.sqrt(max(weight.shape)) if group["matrices"] else 1.0
        weight.add_(direction.to(weight.dtype), alpha=-group["lr"] * size)


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """About U V^T of the matrix U S V^T, by Newton and Schulz in bfloat16; same shape, [m, n]."""
    a, b, c = _COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    found = matrix.bfloat16().T if tall else matrix.bfloat16()
    found = found / found.norm().clamp(min=1e-7)
    for _ in range(steps):
        square = found @ found.T
        found = torch.addmm(found, torch.addmm(square, square, square, beta=b, alpha=c), found, beta=a)
    return found.T if tall else found


def make(ask: Ask) -> Muon:
    matrices = hidden_matrices(ask.model)
    return Muon(ask.groups(lambda name, weight: {"matrices": name in matrices}), **ask.adam, **ask.options)
