"""A forward of a reward model that ends in rewards: its output layer runs in float32 where a sequence ends, once each.

A reward model is a class of transformers for sequences with one label, whose output layer is called `score`. It reads
the last token of a sequence that is not the padding token, and so does this one. Like `models/loss_forward.py` it takes
the place of `forward` on the model object itself; calls without `reward_ends` go to the forward that was there before.

B rows, T positions, K sequences, H hidden.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.models.heads import reward_head
from tunesmith.models.loss_forward import HeadFacts, LossForward, LossWay, hidden_states
from tunesmith.models.seeing import take_media

__all__ = ["RewardForward", "install_rewards", "rewards_match"]


class RewardForward(LossForward):
    """The way `reference` is transformers' own forward of padded rows; all others are that of this module."""

    def __init__(self, model: Any, way: LossWay) -> None:
        super().__init__(model, way, HeadFacts())

    def rewards(self, model: Any, inputs: Mapping[str, Any], ends: Tensor) -> Tensor:
        """[K] float32."""
        if self.way == "reference":
            assert len(ends) == len(inputs["input_ids"]), "transformers has a reward for each row"
            found: Tensor = self.plain(**inputs, use_cache=False).logits[:, 0].float()
            return found
        hidden = self.note(hidden_states(model, inputs))[0]  # [B, T, H]
        return _of_hidden(model, hidden, inputs["input_ids"], ends)


def install_rewards(model: Any, way: LossWay) -> None:
    """Let `model(..., reward_ends=)` return a mapping with `rewards` [K], with a gradient, and `loss`: what a method
    adds for each unit of whatever is made of them.

    reward_ends [K, 5] int64: of each sequence the row, where its positions there start and end, and from where to where
    it goes on behind earlier ones (`models.shared`; nowhere: `start` twice).
    """
    how = model.loss_forward = RewardForward(model, way)
    head = reward_head(model).float()
    head.register_forward_pre_hook(_as_its_weight)

    @functools.wraps(type(model).forward)
    def forward(self: Any, *arguments: Any, reward_ends: Tensor | None = None, **inputs: Any) -> Any:
        if reward_ends is None:
            return how.plain(*arguments, **inputs)
        rewards = how.rewards(self, take_media(self, inputs), reward_ends)
        more = how.for_each_unit() if how.for_each_unit is not None and self.training else rewards.new_zeros(())
        if how.seen is not None:
            how.seen.append(rewards.detach())
        return {"loss": more, "rewards": rewards}

    model.forward = MethodType(forward, model)


def _as_its_weight(head: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """transformers' own forward of a model in half precision gives the float32 head what it does not take."""
    return (inputs[0].to(next(head.parameters()).dtype),)


@torch.compiler.disable  # the number of sequences would make a graph of its own each
def _of_hidden(model: Any, hidden: Tensor, ids: Tensor, ends: Tensor) -> Tensor:
    settings = model.config.get_text_config()
    chosen = hidden[ends[:, 0], _places(ids, ends, settings.pad_token_id)]
    with torch.autocast(hidden.device.type, enabled=False):
        found: Tensor = reward_head(model)(chosen.float())[:, 0].float()
    return found


def _places(ids: Tensor, ends: Tensor, pad: int | None) -> Tensor:
    """[K] the position of the last token of each sequence that is not `pad`; its first one where all are."""
    row, start, end, first, last = ends.unbind(1)
    place = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    seen = torch.where(ids == pad, -1, place).cummax(dim=1).values if pad is not None else place
    own, before = seen[row, end - 1], seen[row, (last - 1).clamp(min=0)]
    return torch.where(own >= start, own, torch.maximum(before, first))


def rewards_match(model: Any) -> bool:
    """Whether transformers' own forward has the rewards that this one has, of two padded rows. It is installed."""
    generator = torch.Generator().manual_seed(0)
    pad, size = model.config.get_text_config().pad_token_id, model.get_input_embeddings().weight.shape[0]
    ids = torch.randint(size, (2, 8), generator=generator)
    ids = torch.where(ids == pad, (ids + 1) % size, ids)
    ids[1, 5:] = pad
    ids = ids.to(model.device)
    ends = ids.new_tensor([[row, 0, ids.shape[1], 0, 0] for row in range(2)])
    inputs, training = {"input_ids": ids, "attention_mask": (ids != pad).long()}, model.training
    model.eval()
    try:
        with torch.no_grad():
            expected = model(**inputs, use_cache=False).logits
            found = model(**inputs, reward_ends=ends)["rewards"]
    finally:
        model.train(training)
    tolerance = 1e-4 if model.dtype == torch.float32 else 5e-2
    fits = expected.shape == (2, 1)
    return fits and bool((found - expected[:, 0].float()).norm() <= tolerance * expected.float().norm().clamp(min=1e-3))
