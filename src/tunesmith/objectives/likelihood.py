"""The log probability of answers as a plain sum over tokens: what is proven of objectives that compare answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tunesmith.core.types import Preference
from tunesmith.losses.token import LogProbs
from tunesmith.objectives.answers import answers_of
from tunesmith.objectives.base import LossOutput, Needs, Objective
from tunesmith.objectives.inputs import IGNORE, model_inputs

__all__ = ["AnswerLikelihood"]


class AnswerLikelihood(Objective):
    """Cross-entropy of the tokens of all answers, rejected ones too. Where a policy is its own reference losses of
    preferences are constants, and their gradients differences of large numbers; this shows what the model computes."""

    needs: ClassVar[Needs] = Needs(example=Preference)
    unit: ClassVar[str] = "tokens"

    def count_units(self, batch: Mapping[str, Any]) -> float:
        return float((batch["labels"] != IGNORE).sum())

    def compute(self, model: Any, batch: Mapping[str, Any]) -> LossOutput:
        answers = answers_of(batch)
        found = model(**model_inputs(batch), **answers.asked, loss_kind=LogProbs())
        count = answers.lengths.sum().double()
        return LossOutput(-answers.sums(found["log_probs"]).sum(), count, count)
