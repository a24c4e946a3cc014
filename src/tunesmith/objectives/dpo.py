"""Learning from pairs of answers: DPO and its family (`losses/preference.py`).

P pairs, K = 2 P sequences: chosen, rejected, chosen, rejected ... The log probabilities of all answers come from one
forward; a loss that compares with a reference model asks it for the same batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from tunesmith.config.preference_facts import OTHER_NAMES
from tunesmith.core.types import Preference
from tunesmith.losses.completions import tail_weights
from tunesmith.losses.mixture import PairMixture
from tunesmith.losses.preference import PairScores, PairSettings
from tunesmith.losses.token import LogProbs
from tunesmith.losses.whole_step import WholeStep
from tunesmith.objectives.answers import Answers, answers_of
from tunesmith.objectives.base import LossOutput, Needs, Objective, Reference
from tunesmith.objectives.inputs import model_inputs, readable_pairs
from tunesmith.objectives.likelihood import AnswerLikelihood

if TYPE_CHECKING:
    from tunesmith.config.objective import ObjectiveConfig

__all__ = ["PairwisePreference", "mixture_of"]


def mixture_of(config: ObjectiveConfig) -> PairMixture:
    """The loss that the keys of a config ask for."""
    names = [OTHER_NAMES.get(name, name) for name in config.pref_loss]
    weights = config.pref_loss_weights or (1.0,) * len(names)
    settings = PairSettings(
        beta=config.pref_beta,
        label_smoothing=config.dpo_label_smoothing,
        divergence=config.pref_divergence,
        divergence_alpha=config.pref_divergence_alpha,
        simpo_gamma=config.simpo_gamma,
        alphapo_alpha=config.alphapo_alpha,
        cpo_alpha=config.cpo_alpha,
        discopop_tau=config.discopop_tau,
    )
    terms = tuple(zip(names, weights, strict=True))
    return PairMixture(terms, settings, config.pref_ftx, config.pref_bco_weight, config.use_wpo)


class PairwisePreference(Objective):
    """Units are pairs, each of weight one. Metrics are those of the field: rewards, margins, accuracies, logps; in
    evaluation also `entropy` in nats, a mean over the tokens of both answers, which costs a look at all logits.
    """

    needs: ClassVar[Needs] = Needs(example=Preference)
    unit: ClassVar[str] = "pairs"

    def __init__(self, config: ObjectiveConfig, *, label_smoothing: float = 0.0) -> None:
        super().__init__(config, label_smoothing=label_smoothing)
        self.mixture = mixture_of(config)

    @property
    def compares(self) -> bool:
        return self.mixture.reference

    @property
    def whole_step(self) -> bool:
        return self.mixture.whole_step

    def provable(self) -> Objective:
        return AnswerLikelihood(self.config)

    def count_units(self, batch: Mapping[str, Any]) -> float:
        if (kept := readable_pairs(batch)) is not None:
            return float(kept.sum())
        return len(batch["kinds"]) / 2 if "kinds" in batch else 0.0

    def reference_sums(self, model: Any, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        return {"reference": self._reference_sums(model, batch, model_inputs(batch), answers_of(batch))}

    def look(self, model: Any, batch: Mapping[str, Any]) -> Tensor:
        """[P, 9]: what a loss of the whole step reads of each pair, NaN for what it does not; and whether it counts."""
        with torch.no_grad():
            scores = self._scores(model, batch)[0]
        kept = readable_pairs(batch)
        counts = torch.ones_like(scores.chosen) if kept is None else kept.to(scores.chosen)
        nothing = scores.chosen.new_full((), torch.nan).expand_as(scores.chosen)
        columns = [getattr(scores, item.name) for item in fields(PairScores)]
        return torch.stack([*(nothing if one is None else one for one in columns), counts], dim=1)

    def settle(self, looked: Tensor) -> Tensor:
        """[all pairs of the step, 9] -> [all, 3]: the factors of both log probabilities, and the share of the loss; of
        a pair that does not count all are 0."""
        counts, given = looked[:, -1] > 0, looked.new_zeros(len(looked), 3)
        if bool(counts.any()):
            found = WholeStep.of(self.mixture, PairScores(*looked[counts, :-1].unbind(1)))
            share = (found.loss_sum / counts.sum()).expand_as(found.chosen)
            given[counts] = torch.stack([found.chosen, found.rejected, share], dim=1)
        return given

    def compute(self, model: Any, batch: Mapping[str, Any]) -> LossOutput:
        scores, found = self._scores(model, batch)
        settled, kept = batch.get("settled"), readable_pairs(batch)
        if kept is not None:
            scores = _of(scores, kept)
            settled = settled if settled is None else settled[kept]
        if settled is not None:
            chosen, rejected, share = settled.unbind(1)
            linear = scores.chosen * chosen + scores.rejected * rejected
            losses = linear + (share - linear).detach()
        else:
            losses = self.mixture(scores)
        count = losses.new_tensor(len(losses))
        metrics = self.mixture.metrics(scores)
        if "entropy" in found:
            metrics["entropy"] = found["entropy"]
        if "aux_loss" in found:
            metrics["aux_loss"] = found["aux_loss"].double() * count
        return LossOutput(losses.sum() + count * found["loss"], count, count, metrics)

    def _scores(self, model: Any, batch: Mapping[str, Any]) -> tuple[PairScores, Mapping[str, Tensor]]:
        """What the policy and the reference say of the pairs, and all that the policy's forward gave."""
        inputs, answers = model_inputs(batch), answers_of(batch)
        how = LogProbs(entropy=not model.training, collision=self.mixture.weighted)
        found = dict(model(**inputs, **answers.asked, loss_kind=how))
        if "entropy" in found:
            found["entropy"] = answers.means(found["entropy"]).sum() / 2
        policy = self._sums(answers, found["log_probs"])
        scores: dict[str, Tensor] = {**_both("{}", policy), **_both("{}_length", answers.lengths.to(policy.dtype))}
        if self.mixture.weighted:
            scores |= _both("{}_alignment", answers.means(found["log_probs"].detach() - found["collision"]))
        if self.compares:
            scores |= _both("ref_{}", self._reference_sums(model, batch, inputs, answers).to(policy.dtype))
        return PairScores(**scores), found

    def _reference_sums(self, model: Any, batch: Mapping[str, Any], inputs: dict[str, Any], answers: Answers) -> Tensor:
        if "reference" in batch:
            found: Tensor = batch["reference"]
            return found
        assert isinstance(self.reference, Reference), "given before the first batch"
        return self._sums(answers, self.reference(model, inputs, answers))

    def _sums(self, answers: Answers, log_probs: Tensor) -> Tensor:
        """[K] over the tokens of each answer, its surplus over the other one counted as `ld_alpha` says."""
        if (alpha := self.config.ld_alpha) is None or len(answers.lengths) % 2:
            return answers.sums(log_probs)
        shorter = answers.lengths.view(-1, 2).amin(1).repeat_interleave(2)
        return answers.sums(log_probs * tail_weights(answers.lengths, shorter, alpha))


def _of(scores: PairScores, kept: Tensor) -> PairScores:
    every = (getattr(scores, item.name) for item in fields(PairScores))
    return PairScores(*(one if one is None else one[kept] for one in every))


def _both(name: str, values: Tensor) -> dict[str, Tensor]:
    """Of sequences [K] those that were chosen, and the others, by names."""
    whole = values[: len(values) // 2 * 2]  # the blank row of a rank without pairs is none
    return {name.format("chosen"): whole[0::2], name.format("rejected"): whole[1::2]}
