"""Reward models: one number for each answer, learnt from pairs (`losses/reward.py`).

P pairs, K = 2 P sequences: chosen, rejected, chosen, rejected ... The model's forward ends in the rewards
(`models/reward_forward.py`), each of the last token of a sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from tunesmith.core.types import Preference
from tunesmith.losses.reward import bradley_terry, reward_metrics
from tunesmith.objectives.base import LossOutput, Needs, Objective
from tunesmith.objectives.inputs import model_inputs, readable_pairs

__all__ = ["RewardModelling", "reward_ends"]


def reward_ends(batch: Mapping[str, Any]) -> Tensor:
    """[K, 5] where the sequences of a batch end, as `models.reward_forward` takes it."""
    ids: Tensor = batch["input_ids"]
    if "segments" in batch:
        return ids.new_tensor([(0, *segment) for segment in batch["segments"]])
    if "bounds" in batch:
        return ids.new_tensor([(0, start, end, start, start) for start, end in pairwise(batch["bounds"])])
    if "row_pieces" in batch:  # a pack in each row
        pieces = batch["row_pieces"].tolist()
        sizes = [row.tolist() for row in batch["lengths"].split(pieces)]
        borders = [[0, *accumulate(row)] for row in sizes]
        return ids.new_tensor(
            [(row, *place, place[0], place[0]) for row, ends in enumerate(borders) for place in pairwise(ends)]
        )
    rows, width = ids.shape
    return ids.new_tensor([(row, 0, width, 0, 0) for row in range(rows)])


class RewardModelling(Objective):
    """Units are pairs, each of weight one; a pair may have a margin. Metrics by TRL's names, and `accuracy` as the
    share of pairs whose chosen answer has the higher reward."""

    needs: ClassVar[Needs] = Needs(example=Preference)
    unit: ClassVar[str] = "pairs"
    rewards: ClassVar[bool] = True

    def provable(self) -> Objective:
        return EachReward(self.config)

    def count_units(self, batch: Mapping[str, Any]) -> float:
        if (kept := readable_pairs(batch)) is not None:
            return float(kept.sum())
        return len(batch["kinds"]) / 2 if "kinds" in batch else 0.0

    def compute(self, model: Any, batch: Mapping[str, Any]) -> LossOutput:
        found = model(**model_inputs(batch), reward_ends=reward_ends(batch))
        rewards = found["rewards"]
        pairs = rewards[: len(rewards) // 2 * 2].view(-1, 2)  # the blank row of a rank without pairs is none
        margins = batch["margins"][0::2] if "margins" in batch else None
        if (kept := readable_pairs(batch)) is not None:
            pairs, margins = pairs[kept], margins if margins is None else margins[kept]
        chosen, rejected = pairs.unbind(1)
        losses = bradley_terry(chosen, rejected, margins, self.config.center_rewards_coefficient)
        count = losses.new_tensor(len(losses), dtype=torch.float64 if losses.device.type != "mps" else torch.float32)
        total = losses.sum() + count.to(losses.dtype) * found["loss"]
        return LossOutput(total, count, count, reward_metrics(chosen, rejected))


class EachReward(RewardModelling):
    """Each answer against one of reward zero: what is proven of reward models. The rewards of a pair begin nearly
    equal, and their differences are differences of large numbers; this shows what the model computes."""

    def compute(self, model: Any, batch: Mapping[str, Any]) -> LossOutput:
        rewards = model(**model_inputs(batch), reward_ends=reward_ends(batch))["rewards"]
        losses = bradley_terry(rewards, torch.zeros_like(rewards))
        count = losses.new_tensor(len(losses))
        return LossOutput(losses.sum(), count, count)
