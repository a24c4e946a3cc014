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

__all__ = [
    "TOKEN_INPUTS",
    "Seen",
    "has_encoders",
    "idle_parts",
    "part_attention",
    "rope_trunk",
    "sequence_positions",
    "set_attention",
    "take_media",
]

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


def has_encoders(model: Any) -> bool:
    """Whether there are parts beside the one that reads text."""
    return TEXT in (model.config.sub_configs or {})


def set_attention(model: Any, attention: str) -> None:
    """Change the attention of what reads text. Raises what transformers raises."""
    model.set_attn_implementation({"": attention, TEXT: attention} if has_encoders(model) else attention)


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
    if "bounds" in inputs and (trunk := rope_trunk(model)) is not None:
        found["position_ids"] = _own_positions(trunk, inputs, media)
    return found


@torch.compiler.disable
def idle_parts(model: Any) -> Tensor | None:
    """A zero [] that depends on each weight that trains and reads no text; None where there is none. Where a batch has
    nothing for a tower to see, the gradient of its weights is zero, not missing, and so is that of layers of a tower
    that a model does not read (LLaVA reads the last but one): several devices wait for that of all weights of each,
    and what the optimizer does with a step must not depend on how it is split."""
    if TEXT not in (model.config.sub_configs or {}):
        return None
    readers = (model.get_decoder(), model.get_input_embeddings(), model.get_output_embeddings())
    read = {id(weight) for part in readers if part is not None for weight in part.parameters()}
    rest = [weight for weight in model.parameters() if weight.requires_grad and id(weight) not in read]
    return torch.cat([weight.reshape(-1)[:0].float() for weight in rest]).sum() if rest else None


def _own_positions(trunk: Any, inputs: Mapping[str, Any], media: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """[3, 1, T], each sequence as if it were alone. What goes on behind a shared prompt has the positions that follow
    it, as in the batch: a prompt is shared up to its first medium at most."""
    parts = []
    for (start, end), own in zip(pairwise(inputs["bounds"]), media, strict=True):
        types = {name: inputs[name][:, start:end] for name in TOKEN_INPUTS if name in inputs}
        positions = sequence_positions(trunk, inputs["input_ids"][:, start:end], types, own)
        parts.append(positions + inputs["position_ids"][0, start])
    return torch.cat(parts, -1)


def rope_trunk(model: Any) -> Any:
    """The part of a model that gives what it sees positions of its own; None where tokens are counted."""
    trunk = getattr(model, "model", None)
    return trunk if hasattr(trunk, "get_rope_index") else None


def sequence_positions(trunk: Any, ids: Tensor, types: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Tensor:
    """[3, 1, T] of one sequence [1, T], by the model's own code. `types`: what it is told of each token, [1, T];
    `own`: what it takes for the media of the sequence."""
    known = inspect.signature(trunk.get_rope_index).parameters
    all_told = {**own, **types, "attention_mask": torch.ones_like(ids)}
    if "feature_attention_mask" in own:  # where the frames of sound are wanted, they are counted by it
        all_told["audio_seqlens"] = own["feature_attention_mask"].sum(-1)
    given = {name: value for name, value in all_told.items() if name in known}
    positions: Tensor = trunk.get_rope_index(ids, **given)[0]
    return positions
