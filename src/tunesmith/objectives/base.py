"""The contract between the Trainer and whatever is optimised.

An objective returns a SUM over its units (trained tokens, pairs, examples). The Trainer adds the units over
micro-batches and ranks and divides once, so loss and gradient do not depend on how a global batch is split. Where units
have weights, both sums are weighted, so the loss is the weighted mean.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from tunesmith.core.types import Chat, Example, Text

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.config.objective import ObjectiveConfig
    from tunesmith.objectives.answers import Answers

__all__ = ["LogitReference", "LossOutput", "Needs", "Objective", "Reference"]


@dataclass(frozen=True, slots=True)
class Needs:
    """What an objective wants prepared. `example` is the type of row that the data engine must deliver."""

    example: type[Example] = Chat

    @property
    def is_text(self) -> bool:
        return self.example is Text


@dataclass(slots=True)
class LossOutput:
    """`loss_sum` is differentiable; `units` is what it was summed over, each by its weight; `count` is the number of
    the units, without weights; `metrics` are sums over that number, but where `divisors` names another one (which may
    be 0 in a step: then there is no such mean)."""

    loss_sum: Tensor
    units: Tensor
    count: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)
    divisors: dict[str, Tensor] = field(default_factory=dict)
    at_evaluation: tuple[str, ...] = ()
    """Names in `metrics` that are told at evaluation only."""

    def sums(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Of each metric the sum, and what it is to be divided by."""
        return {name: (value, self.divisors.get(name, self.count)) for name, value in self.metrics.items()}


@runtime_checkable
class Reference(Protocol):
    """What a policy is compared with."""

    def __call__(self, model: Any, inputs: Mapping[str, Any], answers: Answers) -> Tensor:
        """log p [N] of the tokens of `answers`, without gradient. `model`: the (possibly wrapped) policy."""


@runtime_checkable
class LogitReference(Protocol):
    """One that tells all of a token's logits."""

    def logits(self, inputs: Mapping[str, Any], asked: Mapping[str, Any]) -> Callable[[slice], Tensor]:
        """Of N tokens what `losses.asft.Anchor` asks of a reference. `asked`: `loss_positions` [N, 2] and
        `loss_targets` [N]."""


class Objective(ABC):
    """One way to turn a batch into a loss.

    Most losses of a unit follow from that unit. Where they follow from all units of an optimizer step (`whole_step`),
    the Trainer has `look` at each batch of the step first, `settle` what all ranks saw, and hands each batch its part
    as `settled`. So a loss does not depend on how the step is split, here either.
    """

    needs: ClassVar[Needs]
    unit: ClassVar[str]  # what `count` counts, for people
    rewards: ClassVar[bool] = False
    """Whether the model is one that gives rewards, not tokens."""
    reference: Reference | LogitReference | None = None
    """Given before the first batch, where the objective `compares` and its batches do not bring it."""

    def __init__(self, config: ObjectiveConfig, *, label_smoothing: float = 0.0) -> None:
        """`label_smoothing`: transformers' `label_smoothing_factor`, of the losses of tokens."""
        self.config, self.label_smoothing = config, label_smoothing

    @property
    def compares(self) -> bool:
        """Whether the loss compares with a reference model."""
        return False

    @property
    def whole_step(self) -> bool:
        """Whether the loss of a unit depends on the other units of an optimizer step."""
        return False

    def reference_sums(self, model: Any, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """What the loss reads of the reference: a number [K] of each sequence, by the names under which samples that
        bring these numbers have them. Such batches ask the reference nothing. Without gradient."""
        raise NotImplementedError

    def look(self, model: Any, batch: Mapping[str, Any]) -> Tensor:
        """[U, c] numbers of the batch's U units, without gradient."""
        raise NotImplementedError

    def settle(self, looked: Tensor) -> Tensor:
        """What `look` saw of all units of the step [all, c] -> what the loss of each needs [all, d]."""
        raise NotImplementedError

    def beside(self, batch: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Batches that the policy reads as well for the loss of this one, without gradient. What `look` reads is not
        among them where it is the batch itself, which is computed a second time."""
        return []

    def derive(self, means: Mapping[str, float]) -> dict[str, float]:
        """More metrics, from the means of metrics over all that was summed."""
        return {}

    def provable(self) -> Objective:
        """An objective that shows what the model computes with no more rounding than the model's own."""
        return self

    @abstractmethod
    def count_units(self, batch: Mapping[str, Any]) -> float:
        """Units in a batch, each by its weight, before the model has seen it."""

    @abstractmethod
    def compute(self, model: Any, batch: Mapping[str, Any]) -> LossOutput:
        """Run the (possibly wrapped) model on a batch. `batch` is on the model's device."""
