"""Media on their way into a model: the tensors of each sequence become those of a batch, and tokens get the positions
that the model's own code gives them.

`model(..., media=[{...}, {...}])` is understood by the forward that ends in the loss (`loss_forward`): one mapping for
each sequence of the batch, in their order, as a collator makes them.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from tunesmith.media.tensors import join
from tunesmith.models.media import family_of_type

__all__ = ["TOKEN_INPUTS", "Seen", "part_attention", "set_attention", "take_media"]

TEXT = "text_config"
"""The part of a config that reads text."""
TOKEN_INPUTS = ("mm_token_type_ids", "token_type_ids", "moe_mm_token_type_ids", "cross_attention_mask")
"""What models are told of each token beside its id, [B, T, ...]."""


def part_attention(settings: Any, attention: str, encoders: str) -> str | dict[str, str]:
    """`attn_implementation` for a model with this config: `attention` for what reads text, `encoders` for parts that
    read no text, for which nothing of a flat batch is meant."""
    parts = list(settings.sub_configs or {})
    if attention == encoders or TEXT not in parts:
        return attention
    return {"": attention, **{name: attention if name == TEXT else encoders for name in parts}}


def set_attention(model: Any, attention: str) -> None:
    """Change the attention of what reads text. Raises what transformers raises."""
    several = TEXT in (model.config.sub_configs or {})
    model.set_attn_implementation({"": attention, TEXT: attention} if several else attention)


class Seen(dict[str, Any]):
    """Inputs with more than text in them: they are for all of the model but its output layer, not for its text part."""


def take_media(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs with the media of the batch as the arguments that the model has for them. Where it has positions of
    its own for what it sees, a flat batch gets those of each sequence. A batch of a run with media goes this way also
    if it has none, as a row must not depend on those beside it."""
    if "media" not in inputs:
        return dict(inputs)
    media: Sequence[Mapping[str, Tensor]] = inputs["media"]
    found = Seen({name: value for name, value in inputs.items() if name != "media"})
    family = family_of_type(model.config.model_type)
    some = [one for one in media if one]
    if family.literal and some:  # features are told apart by rows, so one without media has a place for none
        some = [one or {name: value[:, :0] for name, value in some[0].items()} for one in media]
    joined = join(some, family.axes, family.pads)
    found |= {name: value.to(model.dtype) if value.is_floating_point() else value for name, value in joined.items()}
    if "bounds" in inputs and hasattr(model.model, "get_rope_index"):
        found["position_ids"] = _own_positions(model.model, inputs, media)
    return found


def _own_positions(trunk: Any, inputs: Mapping[str, Any], media: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """[3, 1, T], each sequence as if it were alone. What goes on behind a shared prompt has the positions that follow
    it, as in the batch: a prompt is shared up to its first medium at most."""
    bounds = inputs["bounds"]
    known = inspect.signature(trunk.get_rope_index).parameters
    parts = []
    for (start, end), own in zip(pairwise(bounds), media, strict=True):
        given = {name: value for name, value in own.items() if name in known}
        types = inputs["mm_token_type_ids"][:, start:end]
        told = {"mm_token_type_ids": types} if "mm_token_type_ids" in known else {}
        positions, _ = trunk.get_rope_index(inputs["input_ids"][:, start:end], **told, **given)
        parts.append(positions + inputs["position_ids"][0, start])
    return torch.cat(parts, -1)
