"""Metrics of training steps that the log tells beside the loss: means over the steps since the last event."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.objectives import LossOutput

__all__ = ["StepSums", "means"]


class StepSums:
    """Sums stay on the device until the log asks for them. `derive`: more metrics, from means (`Objective.derive`)."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, Tensor]] = {}
        self.derive: Callable[[Mapping[str, float]], dict[str, float]] = lambda means: {}

    def add(self, output: LossOutput) -> LossOutput:
        for name, (value, divisor) in output.sums().items():
            if name not in output.at_evaluation:
                total, count = self._sums.get(name, (0.0, 0.0))
                self._sums[name] = total + value.detach(), count + divisor.detach()
        return output

    def clear(self) -> None:
        self._sums.clear()

    def event(self, gather: Callable[[list[float]], np.ndarray]) -> dict[str, float]:
        """Means since the last event. `gather`: numbers of this process -> [processes, numbers]."""
        sums = {name: gather([float(one) for one in pair]).sum(0).tolist() for name, pair in self._sums.items()}
        self.clear()
        found = means(sums)
        return found | self.derive(found)


def means(sums: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Of (sum, divisor) by name, where there is something to divide by."""
    return {name: total / divisor for name, (total, divisor) in sums.items() if divisor}
