"""Metrics of training steps that the log tells beside the loss: means over the steps since the last event."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.objectives import LossOutput

__all__ = ["StepSums"]

_EVALUATED = ("accuracy", "nll_loss")
"""Names in `LossOutput.metrics` that are told at evaluation only."""


class StepSums:
    """Sums stay on the device until the log asks for them."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, Tensor]] = {}

    def add(self, output: LossOutput) -> LossOutput:
        for name, value in output.metrics.items():
            if name not in _EVALUATED:
                total, count = self._sums.get(name, (0.0, 0.0))
                self._sums[name] = total + value.detach(), count + output.count.detach()
        return output

    def clear(self) -> None:
        self._sums.clear()

    def event(self, gather: Callable[[list[float]], np.ndarray]) -> dict[str, float]:
        """Means over the units since the last event. `gather`: numbers of this process -> [processes, numbers]."""
        found = {}
        for name, pair in self._sums.items():
            total, count = gather([float(one) for one in pair]).sum(0).tolist()
            found[name] = total / max(count, 1.0)
        self.clear()
        return found
