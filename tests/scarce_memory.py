"""A machine with little memory: an objective that runs out of it above so many tokens, as a device would."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from tunesmith.objectives.sft import SupervisedFineTuning

__all__ = ["Scarce"]

_compute = SupervisedFineTuning.compute


class Scarce:
    """Stands in for `SupervisedFineTuning.compute`. More than `most` tokens at once are too many while training, more
    than `most_evaluated` otherwise; the first `spared` calls go well. What fails leaves traces: numbers drawn, and half
    of a gradient. `seen`: tokens of all parts, in order; those that failed are negative."""

    def __init__(
        self, most: int, most_evaluated: int = 10**9, spared: int = 0, error: type[BaseException] | None = None
    ) -> None:
        self.most, self.most_evaluated, self.spared = most, most_evaluated, spared
        self.error = error or torch.OutOfMemoryError
        self.seen: list[int] = []

    def __call__(self, objective: Any, model: Any, batch: Mapping[str, Any]) -> Any:
        tokens = batch["input_ids"].numel()
        most = self.most if model.training else self.most_evaluated
        if len(self.seen) < self.spared:
            most = tokens
        self.seen.append(tokens if tokens <= most else -tokens)
        output = _compute(objective, model, batch)
        if tokens > most:
            torch.rand(3)
            for weight in model.parameters():
                if weight.requires_grad and model.training:
                    weight.grad = torch.ones_like(weight)
            raise self.error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes.")
        return output

    def install(self, monkeypatch: Any) -> Scarce:
        """For the rest of a test."""
        monkeypatch.setattr(SupervisedFineTuning, "compute", lambda *arguments: self(*arguments))
        return self
