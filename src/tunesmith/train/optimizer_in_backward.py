"""The optimizer steps in the backward pass: a weight as soon as its gradient is there, and the gradient is let go.

So the gradients of two weights are never held at once. The optimizer, its states and its groups stay those that a run
without this has; the step that the training loop makes afterwards finds no gradient and changes nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tunesmith.core.errors import Problem, UsageError

__all__ = ["StepInBackward"]


class StepInBackward:
    """Steps the weights of `optimizer` in every backward pass from now on.

    The optimizer has to keep what it knows in the states of the weights, not in its groups: a step sees a group with
    one weight. Raises UsageError in the backward pass where a gradient comes in parts.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._norms: dict[int, Tensor] = {}
        number = 0
        for place, group in enumerate(optimizer.param_groups):
            for weight in group["params"]:
                weight.register_post_accumulate_grad_hook(self._stepping(number, place))
                number += 1

    def _stepping(self, number: int, place: int) -> Any:
        def step(weight: Tensor) -> None:
            if number in self._norms:
                raise UsageError(_in_parts(weight))
            assert weight.grad is not None, "this is called with a gradient"
            self._norms[number] = torch.linalg.vector_norm(weight.grad)
            groups = self._optimizer.param_groups
            self._optimizer.param_groups = [{**groups[place], "params": [weight]}]
            try:
                self._optimizer.step()
            finally:
                self._optimizer.param_groups = groups
            weight.grad = None

        return step

    def take_norm(self) -> Tensor:
        """The norm of the whole gradient of the last backward pass, [], made of the norms of all weights; 0 where there
        was none. A new step begins."""
        norms = [self._norms[number] for number in sorted(self._norms)]
        self._norms.clear()
        if not norms:
            return torch.zeros(())
        return torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device) for norm in norms]))


def _in_parts(weight: Tensor) -> Problem:
    return Problem(
        "E-TRAIN-040",
        "a gradient comes in parts, and the optimizer would step after the first",
        where="optimizer_in_bwd",
        got=f"a weight of {tuple(weight.shape)} that several layers share",
        fix="use_reentrant_gc: false, or no optimizer_in_bwd",
    )
