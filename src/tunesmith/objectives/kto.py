"""Learning from answers that people liked or did not like: KTO and its relatives (`losses/feedback.py`).

E answers, each a sequence of kind LIKED or DISLIKED. What a loss needs of the whole optimizer step is one number, the
baseline: for KTO the divergence from the reference, estimated of answers to other prompts (`data/mismatch.py`), which a
batch brings along as `mismatched`; for BCO the mean reward.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from tunesmith.config.preference_facts import FEEDBACK_FACTS
from tunesmith.core.types import Feedback
from tunesmith.data.dataset import LIKED
from tunesmith.data.mismatch import MISMATCHED
from tunesmith.losses.feedback import (
    FeedbackScores,
    FeedbackSettings,
    divergence,
    feedback_loss,
    feedback_metrics,
    mean_reward,
)
from tunesmith.losses.token import LogProbs
from tunesmith.objectives.answers import Answers, answers_of
from tunesmith.objectives.base import LossOutput, Needs, Objective, Reference
from tunesmith.objectives.inputs import model_inputs, readable
from tunesmith.objectives.likelihood import AnswerLikelihood

if TYPE_CHECKING:
    from tunesmith.config.objective import ObjectiveConfig

__all__ = ["AnswerFeedback"]


class AnswerFeedback(Objective):
    """Units are answers, each of weight one; `kto_chosen_weight` and `kto_rejected_weight` multiply losses.

    Metrics: rewards and log probabilities of liked (chosen) and of disliked (rejected) answers, each a mean over
    those; the share of answers whose reward lies on its side of the baseline; what the step had as divergence; and
    `entropy` of the policy in nats, a mean over the tokens of each answer.
    """

    needs: ClassVar[Needs] = Needs(example=Feedback)
    unit: ClassVar[str] = "answers"

    def __init__(self, config: ObjectiveConfig, *, label_smoothing: float = 0.0) -> None:
        super().__init__(config, label_smoothing=label_smoothing)
        self.facts = FEEDBACK_FACTS[config.kto_loss]
        self.settings = FeedbackSettings(
            config.pref_beta, config.kto_chosen_weight, config.kto_rejected_weight, config.pref_ftx
        )

    @property
    def compares(self) -> bool:
        return True

    @property
    def whole_step(self) -> bool:
        return self.facts.kl or self.facts.shift

    def provable(self) -> Objective:
        return AnswerLikelihood(self.config)

    def count_units(self, batch: Mapping[str, Any]) -> float:
        if (kept := readable(batch)) is not None:
            return float(kept.sum())
        return float(len(batch["kinds"])) if "kinds" in batch else 0.0

    def reference_sums(self, model: Any, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        read = {"reference": batch}
        if self.facts.kl:
            read[MISMATCHED + "reference"] = batch["mismatched"]
        return {name: self._reference(model, one, model_inputs(one), answers_of(one)) for name, one in read.items()}

    def look(self, model: Any, batch: Mapping[str, Any]) -> Tensor:
        """[E, 3]: a log ratio of each answer, for KTO that of the answer to another prompt; whether it is liked; and
        whether it counts."""
        with torch.no_grad():
            liked = _liked(batch)
            if not len(liked):  # a rank without answers
                return liked.new_zeros(0, 3).float()
            policy, reference = self._both(model, batch["mismatched"] if self.facts.kl else batch)[:2]
            kept = readable(batch)
            counts = torch.ones_like(policy) if kept is None else kept.to(policy)
            return torch.stack([policy - reference, liked.to(policy.dtype), counts], dim=1)

    def settle(self, looked: Tensor) -> Tensor:
        """[all answers of the step, 3] -> [all, 1]: the baseline, the same for all."""
        counted = looked[looked[:, 2] > 0]
        if not len(counted):
            return looked.new_zeros(len(looked), 1)
        ratios, liked = counted[:, 0], counted[:, 1] > 0
        if self.facts.kl:
            baseline = divergence(ratios.sum(), len(counted))
        else:
            baseline = mean_reward(self.settings.beta * ratios, liked)
        return baseline.expand(len(looked), 1)

    def beside(self, batch: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        return [batch["mismatched"]] if self.facts.kl and "mismatched" in batch else []

    def compute(self, model: Any, batch: Mapping[str, Any]) -> LossOutput:
        scores, found = self._scores(model, batch)
        baseline = self._baseline(model, batch, scores.policy)
        if (kept := readable(batch)) is not None:
            scores = FeedbackScores(
                scores.policy[kept], scores.reference[kept], scores.length[kept], scores.liked[kept]
            )
            baseline = baseline[kept]
        losses = feedback_loss(self.config.kto_loss, scores, self.settings, baseline)
        count = losses.new_tensor(len(losses))
        metrics, divisors = feedback_metrics(scores, self.settings, self._in_rewards(baseline))
        metrics["entropy"] = found["entropy"][: len(_liked(batch))].double().sum()
        if self.facts.kl:
            metrics["kl"] = baseline.double().sum()
        if "aux_loss" in found:
            metrics["aux_loss"] = found["aux_loss"].double() * count
        return LossOutput(losses.sum() + count * found["loss"], count, count, metrics, divisors)

    def derive(self, means: Mapping[str, float]) -> dict[str, float]:
        sides = [means.get(f"rewards/{side}") for side in ("chosen", "rejected")]
        return {} if None in sides else {"rewards/margins": sides[0] - sides[1]}  # type: ignore[operator]

    def _baseline(self, model: Any, batch: Mapping[str, Any], like: Tensor) -> Tensor:
        """[E]. A batch that nothing was settled for is a step of its own."""
        if not self.whole_step or not len(like):
            return torch.zeros_like(like)
        if "settled" in batch:
            found: Tensor = batch["settled"]
        else:
            training = model.training
            model.eval()  # no dropout, and no activations that are computed again
            found = self.settle(self.look(model, batch))
            model.train(training)
        return found[:, 0].to(like)

    def _in_rewards(self, baseline: Tensor) -> Tensor:
        return self.settings.beta * baseline if self.facts.kl else baseline

    def _scores(self, model: Any, batch: Mapping[str, Any]) -> tuple[FeedbackScores, Mapping[str, Tensor]]:
        policy, reference, lengths, found = self._both(model, batch, entropy=True)
        liked = _liked(batch)
        count = len(liked)  # the blank row of a rank without answers is none
        return FeedbackScores(policy[:count], reference[:count], lengths[:count], liked), found

    def _both(
        self, model: Any, batch: Mapping[str, Any], *, entropy: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, Mapping[str, Tensor]]:
        """Log probabilities [K] of the answers of all sequences by the policy and by the reference, how many tokens
        these are, and all that the policy's forward gave, entropies as means [K]."""
        inputs, answers = model_inputs(batch), answers_of(batch)
        found = dict(model(**inputs, **answers.asked, loss_kind=LogProbs(entropy=entropy)))
        if entropy:
            found["entropy"] = answers.means(found["entropy"])
        policy = answers.sums(found["log_probs"])
        reference = self._reference(model, batch, inputs, answers).to(policy.dtype)
        return policy, reference, answers.lengths.clamp(min=1), found

    def _reference(self, model: Any, batch: Mapping[str, Any], inputs: dict[str, Any], answers: Answers) -> Tensor:
        if "reference" in batch:
            found: Tensor = batch["reference"]
            return found
        assert isinstance(self.reference, Reference), "given before the first batch"
        return answers.sums(self.reference(model, inputs, answers))


def _liked(batch: Mapping[str, Any]) -> Tensor:
    """Bool [E]; none of the blank row of a rank without answers."""
    if "kinds" not in batch:
        return torch.zeros(0, dtype=torch.bool, device=batch["input_ids"].device)
    kinds: Tensor = batch["kinds"]
    return kinds == LIKED
