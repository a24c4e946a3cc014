"""Metrics of training steps that the log tells beside the loss: means over the steps since the last event."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from tunesmith.checkpoints.states import has_tree, load_tree
from tunesmith.train.states import process_name

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.objectives import LossOutput

__all__ = ["StepSums", "means"]

Sums: TypeAlias = "dict[str, tuple[Tensor | float, Tensor | float]]"


class StepSums:
    """Sums stay on the device until the log asks for them. `derive`: more metrics, from means (`Objective.derive`)."""

    def __init__(self) -> None:
        self._earlier: Sums = {}
        self._step: Sums = {}
        self.derive: Callable[[Mapping[str, float]], dict[str, float]] = lambda means: {}

    def add(self, output: LossOutput) -> LossOutput:
        for name, (value, divisor) in output.sums().items():
            if name not in output.at_evaluation:
                _add(self._step, name, value.detach(), divisor.detach())
        return output

    def begin(self) -> None:
        """Another step begins: what the one before added will be told."""
        for name, pair in self._step.items():
            _add(self._earlier, name, *pair)
        self.drop()

    def drop(self) -> None:
        """What the step has added so far is told by nobody: it is made again, or left out."""
        self._step = {}

    def clear(self) -> None:
        self._earlier = {}
        self.drop()

    def event(self, gather: Callable[[list[float]], np.ndarray]) -> dict[str, float]:
        """Means since the last event. `gather`: numbers of this process -> [processes, numbers]."""
        told = self.to_tell()
        self.clear()
        if not told:
            return {}
        sums = gather([one for pair in told.values() for one in pair]).sum(0).reshape(-1, 2)
        found = means(dict(zip(told, sums.tolist(), strict=True)))
        return found | self.derive(found)

    def to_tell(self) -> dict[str, list[float]]:
        """(sum, divisor) by name, of this process since the last event. All processes have the same names."""
        self.begin()
        return {name: [float(one) for one in self._earlier[name]] for name in sorted(self._earlier)}

    def take_up(self, checkpoint: Path, rank: int, ranks: int) -> None:
        """Go on with what a checkpoint holds that no log has told; of other processes than there are now somebody goes
        on with each."""
        number = 0
        while has_tree(checkpoint, process_name(number)):
            mine = number % ranks == rank
            for name, pair in load_tree(checkpoint, process_name(number)).get("sums", {}).items():
                _add(self._earlier, name, *(pair if mine else (0.0, 0.0)))
            number += 1


def _add(sums: Sums, name: str, value: Tensor | float, divisor: Tensor | float) -> None:
    total, count = sums.get(name, (0.0, 0.0))
    sums[name] = total + value, count + divisor


def means(sums: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Of (sum, divisor) by name, where there is something to divide by."""
    return {name: total / divisor for name, (total, divisor) in sums.items() if divisor}
