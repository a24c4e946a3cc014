"""What an optimizer is made from: the settings of the run, and its weights in groups of the same settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import Tensor

from tunesmith.config.optimizer import OptimizerConfig
from tunesmith.core.errors import Problem, UsageError
from tunesmith.train.optimizers.inner import Make

__all__ = ["Ask", "Tags"]

Tags: TypeAlias = Callable[[str, Tensor], Mapping[str, Any] | None]
"""Name and weight -> what the optimizer wants to know of it; None: it does not train."""
_SHOWN = 6


def _none(_name: str, _weight: Tensor) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class Ask:
    """`adam`: lr, betas, eps and weight_decay; `options`: from `optim_args`; `decays`: names of the weights that decay;
    `inside`: makes the optimizer that `optim` names."""

    config: OptimizerConfig
    model: Any
    adam: Mapping[str, Any]
    decays: frozenset[str]
    inside: Make
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def groups(self, tags: Tags = _none) -> list[dict[str, Any]]:
        """The trained weights in groups. The first two are those that decay and those that do not, as transformers
        has them; others are of LoRA+, of `lr_groups` or of what the optimizer treats apart. A weight without tags is
        frozen.

        Raises UsageError (E-OPTIM-012) where a pattern of `lr_groups` is of no weight.
        """
        rate, decay = self.adam["lr"], self.adam["weight_decay"]
        chooser = _LrGroups(self.config.lr_groups or {}, rate)
        found: dict[Any, dict[str, Any]] = {}
        tagged = False
        for name, weight in self.model.named_parameters():
            if not weight.requires_grad:
                continue
            if (tag := tags(name, weight)) is None:
                weight.requires_grad_(False)
                continue
            settings = {"weight_decay": decay if name in self.decays else 0.0}
            settings |= self._lora_plus(name, weight, rate) | chooser.of(name) | tag
            tagged |= bool(tag)
            found.setdefault(_key(settings), {**settings, "params": []})["params"].append(weight)
        chooser.check()
        plain = [{"weight_decay": decay, "params": []}, {"weight_decay": 0.0, "params": []}]
        if tagged or decay == 0:
            return list(found.values())
        first = [found.pop(_key({"weight_decay": one["weight_decay"]}), one) for one in plain]
        return [*first, *found.values()]

    def _lora_plus(self, name: str, weight: Tensor, rate: float) -> dict[str, Any]:
        """LoRA+ (Hayou et al., arXiv:2402.12354): B matrices, which begin at 0, learn faster than A."""
        ratio = self.config.loraplus_lr_ratio
        if ratio is None:
            return {}
        if "lora_embedding_B" in name:
            return {"lr": self.config.loraplus_lr_embedding}
        return {"lr": rate * ratio} if "lora_B" in name or weight.ndim == 1 else {}


def _key(settings: Mapping[str, Any]) -> Any:
    return tuple(sorted(settings.items()))


class _LrGroups:
    """Settings of weights by the first pattern that is found in their names."""

    def __init__(self, patterns: Mapping[str, Any], rate: float) -> None:
        self._patterns = [(re.compile(pattern), wanted) for pattern, wanted in patterns.items()]
        self._rate = rate
        self._used: set[str] = set()
        self._names: list[str] = []

    def of(self, name: str) -> dict[str, Any]:
        self._names.append(name)
        for pattern, wanted in self._patterns:
            if pattern.search(name):
                self._used.add(pattern.pattern)
                settings = {key: float(value) for key, value in wanted.items() if key != "lr_factor"}
                return settings | ({"lr": self._rate * wanted["lr_factor"]} if "lr_factor" in wanted else {})
        return {}

    def check(self) -> None:
        for pattern, _ in self._patterns:
            if pattern.pattern not in self._used:
                taken = any(pattern.search(name) for name in self._names)
                what = "this pattern is of no trained weight" + (" that an earlier one leaves" if taken else "")
                fix = f"a regular expression for names such as {', '.join(self._names[:_SHOWN])}"
                raise UsageError(Problem("E-OPTIM-012", what, "lr_groups", pattern.pattern, fix))
