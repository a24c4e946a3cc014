"""The loss of a reward model: Bradley-Terry, https://arxiv.org/abs/1706.03741, from one number for each answer."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = ["bradley_terry", "reward_metrics"]


def bradley_terry(chosen: Tensor, rejected: Tensor, margin: Tensor | None = None, center: float = 0.0) -> Tensor:
    """-log s(chosen - rejected - margin) + center (chosen + rejected)^2: losses [P].

    chosen, rejected [P]: rewards, computed in float32 at least. margin [P]: by how much the chosen answer is to be
    better, https://arxiv.org/abs/2307.09288, section 3.2.2. `center` keeps rewards near zero,
    https://arxiv.org/abs/2312.09244, section 2.
    """
    chosen, rejected = (_at_least_single(rewards) for rewards in (chosen, rejected))
    ahead = chosen - rejected
    losses = -logsigmoid(ahead if margin is None else ahead - margin)
    return losses + center * (chosen + rejected) ** 2 if center else losses


def _at_least_single(rewards: Tensor) -> Tensor:
    return rewards if rewards.dtype == torch.float64 else rewards.float()


def reward_metrics(chosen: Tensor, rejected: Tensor) -> dict[str, Tensor]:
    """Sums over P pairs, float64, without gradient, by TRL's names; equal rewards are not accurate."""
    chosen, rejected = chosen.detach().double(), rejected.detach().double()
    return {
        "accuracy": (chosen > rejected).double().sum(),
        "margin": (chosen - rejected).sum(),
        "rewards/chosen": chosen.sum(),
        "rewards/rejected": rejected.sum(),
    }
