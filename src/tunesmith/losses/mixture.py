"""The loss of pairs that a run trains: one of `PAIR_LOSSES`, or several with weights, and what is added to it.

    loss = (sum_k weight_k * a * loss_k + bco_weight * bco) / (1 + bco_weight) + ftx * sft

    a    with WPO, exp of the alignments of both answers, https://arxiv.org/abs/2406.11827, eq. 2; else 1
    bco  -log s(bC) - log s(-bR); LlamaFactory's `pref_bco_weight` subtracts a running mean of rewards first

Several losses with weights are MPO, https://arxiv.org/abs/2411.10442.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from tunesmith.config.preference_facts import PAIR_FACTS
from tunesmith.losses.preference import (
    PAIR_LOSSES,
    REWARDS,
    PairScores,
    PairSettings,
    bco_pair,
    log_odds,
    ratio_rewards,
    sft,
)

__all__ = ["PairMixture"]


@dataclass(frozen=True, slots=True)
class PairMixture:
    """`terms`: names of `PAIR_LOSSES` and their weights, at least one. `weighted`: WPO's factors on all of them, which
    then must not be `ranked`."""

    terms: tuple[tuple[str, float], ...] = (("sigmoid", 1.0),)
    settings: PairSettings = field(default_factory=PairSettings)
    ftx: float = 0.0
    bco_weight: float = 0.0
    weighted: bool = False

    @property
    def reference(self) -> bool:
        return self.bco_weight > 0 or any(PAIR_FACTS[name].reference for name, _ in self.terms)

    @property
    def whole_step(self) -> bool:
        return any(PAIR_FACTS[name].whole_step for name, _ in self.terms)

    @property
    def has_sft(self) -> bool:
        return self.ftx > 0 or any(PAIR_FACTS[name].sft for name, _ in self.terms)

    def __call__(self, scores: PairScores) -> Tensor:
        """Losses [P]."""
        weights = wpo_weights(scores) if self.weighted else None
        total = torch.zeros_like(scores.chosen)
        for name, weight in self.terms:
            losses = PAIR_LOSSES[name](scores, self.settings)
            total = total + weight * (losses if weights is None else losses * weights)
        if self.bco_weight > 0:
            total = (total + self.bco_weight * bco_pair(scores, self.settings)) / (1 + self.bco_weight)
        return total + self.ftx * sft(scores, self.settings) if self.ftx > 0 else total

    def metrics(self, scores: PairScores) -> dict[str, Tensor]:
        """Sums over the pairs, float64, without gradient, by the names of TRL and LlamaFactory.

        `rewards/...` are those of the first loss. `logps/...` are of answers: sums over tokens, or means over tokens
        where the first loss compares those and has no reference. `sft_loss` and `odds_ratio_loss` are there where they
        are part of the loss.
        """
        with torch.no_grad():
            first = self.terms[0][0]
            chosen, rejected = (
                rewards.double() for rewards in REWARDS.get(first, ratio_rewards)(scores, self.settings)
            )
            facts = PAIR_FACTS[first]
            logps = scores.averages() if facts.averages and not facts.reference else (scores.chosen, scores.rejected)
            found = {
                "rewards/chosen": chosen,
                "rewards/rejected": rejected,
                "rewards/accuracies": (chosen > rejected).double(),
                "rewards/margins": chosen - rejected,
                "logps/chosen": logps[0],
                "logps/rejected": logps[1],
            }
            if self.has_sft:
                found["sft_loss"] = sft(scores, self.settings)
            if any(name == "orpo" for name, _ in self.terms):
                found["odds_ratio_loss"] = -logsigmoid(log_odds(scores))
            return {name: value.double().sum() for name, value in found.items()}


def wpo_weights(scores: PairScores) -> Tensor:
    """[P], above 0, constants for the gradient: how likely both answers are under the policy itself."""
    assert scores.chosen_alignment is not None, "WPO needs alignments"
    assert scores.rejected_alignment is not None, "WPO needs alignments"
    return (scores.chosen_alignment + scores.rejected_alignment).detach().exp()
