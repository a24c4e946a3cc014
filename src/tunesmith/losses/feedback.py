"""Losses of single answers that people liked or did not like, from the log probability of each answer.

E answers, u log ratio log p(y) / p_ref(y) of an answer, b beta, s sigmoid. Each function gives [E] losses before the
weights of liked and disliked answers; `feedback_loss` has those. What a function needs of the whole optimizer step is
one number, the baseline, which the caller computes over all micro-batches and ranks; so losses add up over any split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = [
    "FEEDBACK_LOSSES",
    "FeedbackScores",
    "FeedbackSettings",
    "divergence",
    "feedback_loss",
    "feedback_metrics",
    "mean_reward",
]


@dataclass(frozen=True, slots=True)
class FeedbackScores:
    """`policy`, `reference` [E]: log probability of the answer, summed over its tokens; the first with gradient.
    `length` [E]: how many tokens those are, at least 1. `liked`: bool [E]."""

    policy: Tensor
    reference: Tensor
    length: Tensor
    liked: Tensor

    def ratios(self) -> Tensor:
        """u [E]."""
        return self.policy - self.reference


@dataclass(frozen=True, slots=True)
class FeedbackSettings:
    """`chosen_weight`, `rejected_weight`: of liked and of disliked answers. `ftx`: of fine-tuning on the liked."""

    beta: float = 0.1
    chosen_weight: float = 1.0
    rejected_weight: float = 1.0
    ftx: float = 0.0


def divergence(ratio_sum: Tensor, count: Tensor | float) -> Tensor:
    """KTO's baseline in nats: the mean log ratio of answers that belong to other prompts, at least 0.

    The sum is over all such answers of the step, so the estimate is that of the step, not of a micro-batch.
    """
    return (ratio_sum / count).clamp(min=0)


def mean_reward(rewards: Tensor, liked: Tensor) -> Tensor:
    """BCO's baseline: half the mean reward of the liked answers and half that of the others, [E] -> scalar; where
    there are answers of one side only, their mean."""
    sides = [rewards[side].mean() for side in (liked, ~liked) if side.any()]
    return torch.stack(sides).mean()


def kto(rewards: Tensor, liked: Tensor, baseline: Tensor | float) -> Tensor:
    """1 - s(b (u - K)) for the liked, 1 - s(b (K - u)) for the others: https://arxiv.org/abs/2402.01306, eq. 7.

    baseline: b K."""
    return torch.where(liked, baseline - rewards, rewards - baseline).sigmoid()


def apo_zero_unpaired(rewards: Tensor, liked: Tensor, baseline: Tensor | float) -> Tensor:
    """1 - s(bu) for the liked, s(bu) for the others: https://arxiv.org/abs/2408.06266, eq. 7. No baseline is read."""
    return torch.where(liked, -rewards, rewards).sigmoid()


def bco(rewards: Tensor, liked: Tensor, baseline: Tensor | float) -> Tensor:
    """-log s(bu - d) for the liked, -log s(d - bu) for the others: https://arxiv.org/abs/2404.04656.

    baseline: d, half the mean reward of liked answers and half that of the others."""
    return -logsigmoid(torch.where(liked, rewards - baseline, baseline - rewards))


FEEDBACK_LOSSES: Mapping[str, Callable[[Tensor, Tensor, Tensor | float], Tensor]] = {
    "kto": kto,
    "apo_zero_unpaired": apo_zero_unpaired,
    "bco": bco,
}
"""Rewards bu [E], liked [E], baseline in the units of rewards -> [E]."""


def feedback_loss(
    name: str, scores: FeedbackScores, settings: FeedbackSettings, baseline: Tensor | float = 0.0
) -> Tensor:
    """Losses [E]. baseline: for kto, K in nats as `divergence` gives it; for bco, d as a reward; a constant for the
    gradient.

    The term of `ftx` is -log p(y) / |y| of each liked answer.
    """
    in_rewards = settings.beta * baseline if name == "kto" else baseline
    losses = FEEDBACK_LOSSES[name](settings.beta * scores.ratios(), scores.liked, in_rewards)
    losses = losses * torch.where(scores.liked, settings.chosen_weight, settings.rejected_weight).to(losses.dtype)
    return losses - settings.ftx * torch.where(scores.liked, scores.policy / scores.length, 0.0)


def feedback_metrics(
    scores: FeedbackScores, settings: FeedbackSettings, baseline: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Sums by the names of TRL, and of those that are not of all answers how many they are of; float64, without
    gradient. baseline [E]: a reward above it counts as liked in `rewards/accuracies`."""
    with torch.no_grad():
        rewards, logps = settings.beta * scores.ratios().double(), scores.policy.double()
        found = {"rewards/accuracies": ((rewards > baseline) == scores.liked).double().sum()}
        divisors: dict[str, Tensor] = {}
        for side, chosen in (("chosen", scores.liked), ("rejected", ~scores.liked)):
            for name, values in (("rewards", rewards), ("logps", logps)):
                found[f"{name}/{side}"] = values[chosen].sum()
                divisors[f"{name}/{side}"] = chosen.sum().double()
        return found, divisors
