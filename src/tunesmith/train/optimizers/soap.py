"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al., arXiv:2409.11321, Algorithm 3).

Of a weight [m, n] the averages of G G^T [m, m] and G^T G [n, n] are kept, with their eigenvectors, which are found by
`eigh` at the first step and by one power iteration and QR every `interval` steps after it. The first moment is kept in
the weight's own coordinates, the second in the basis. The first step finds the basis and changes no weight. A dimension
above `max_dim` (a vocabulary) keeps the identity; weights of another shape than a matrix are stepped by AdamW.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Unpack

import torch
from torch import Tensor

from tunesmith.train.optimizers.ask import Ask
from tunesmith.train.optimizers.base import AdamSettings, PerWeight, adam_direction, decay, next_step

__all__ = ["Soap", "make"]

_SIDES = ("left", "right")


class Soap(PerWeight):
    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        precondition_frequency: int = 10,
        max_precondition_dim: int = 10_000,
        **adam: Unpack[AdamSettings],
    ) -> None:
        self.interval, self.max_dim = precondition_frequency, max_precondition_dim
        super().__init__(groups, adam)

    def update(self, weight: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        grad, step = weight.grad, next_step(state)
        assert grad is not None
        if grad.ndim != 2:
            direction = adam_direction(grad, state, step, group)
        else:
            grad = grad.float()
            if step == 1:
                self._begin(grad, state, group)
                return
            direction = self._direction(grad, state, step - 1, group)
        decay(weight, group)
        weight.add_(direction.to(weight.dtype), alpha=-group["lr"])
        if grad.ndim == 2:
            self._learn(grad, state, group)
            if (step - 1) % self.interval == 0:
                _turn(state)

    def _begin(self, grad: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(grad), torch.zeros_like(grad)
        for side, size in zip(_SIDES, grad.shape, strict=True):
            if size <= self.max_dim:
                state[side] = torch.zeros(size, size, device=grad.device)
        self._learn(grad, state, group)
        for side in _SIDES:
            if side in state:
                state[f"{side}_basis"] = torch.linalg.eigh(state[side])[1].flip(1).contiguous()

    def _learn(self, grad: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        for side, matrix in zip(_SIDES, (grad, grad.T), strict=True):
            if side in state:
                state[side].lerp_(matrix @ matrix.T, 1 - group["betas"][1])

    def _direction(self, grad: Tensor, state: dict[str, Any], step: int, group: Mapping[str, Any]) -> Tensor:
        beta1, beta2 = group["betas"]
        left, right = (state.get(f"{side}_basis") for side in _SIDES)
        turned = _into(grad, left, right)
        state["exp_avg"].lerp_(grad, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(turned, turned, value=1 - beta2)
        scale = state["exp_avg_sq"].sqrt().add_(group["eps"])
        correction = math.sqrt(1 - beta2**step) / (1 - beta1**step)
        there = _into(state["exp_avg"], left, right) / scale * correction
        there = there if left is None else left @ there
        return there if right is None else there @ right.T


def _into(matrix: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
    """[m, n] in the basis."""
    matrix = matrix if left is None else left.T @ matrix
    return matrix if right is None else matrix @ right


def _turn(state: dict[str, Any]) -> None:
    """Bring the basis near to the eigenvectors of today; the second moment is sorted along with it."""
    for axis, side in enumerate(_SIDES):
        if side not in state:
            continue
        basis = state[f"{side}_basis"]
        product = state[side] @ basis
        order = torch.argsort((basis * product).sum(0), descending=True)
        state["exp_avg_sq"] = state["exp_avg_sq"].index_select(axis, order)
        # As it is after a resume: a product of columns that lie side by side has other bits.
        state[f"{side}_basis"] = torch.linalg.qr(product[:, order])[0].contiguous()


def make(ask: Ask) -> Soap:
    return Soap(ask.groups(), **ask.adam, **ask.options)
