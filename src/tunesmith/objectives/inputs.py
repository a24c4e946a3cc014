"""What of a batch the model reads."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from tunesmith.models.attention import SharedBounds
from tunesmith.models.seeing import TOKEN_INPUTS
from tunesmith.models.shared import Segment

__all__ = ["IGNORE", "model_inputs", "on_device", "readable", "readable_pairs"]

IGNORE = -100  # label of a position that is not trained; the field's convention


def model_inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """What of a batch the model reads. A flat one has the borders of its sequences in all forms that kinds of attention
    ask for, and no mask. Where sequences share what they begin with, its bounds say so."""
    names = ("input_ids", "attention_mask", "position_ids", "media", *TOKEN_INPUTS)
    found = {name: batch[name] for name in names if name in batch}
    if "bounds" in batch:
        bounds, borders = batch["bounds"], batch["cu_seqlens"]
        longest = max(end - start for start, end in pairwise(bounds))
        found |= {"bounds": bounds, "cu_seq_lens_q": borders, "cu_seq_lens_k": borders}
        found |= {"max_length_q": longest, "max_length_k": longest}
        if "segments" in batch:
            found["bounds"] = SharedBounds([Segment(*one) for one in batch["segments"]])
    return found


def readable(batch: Mapping[str, Any]) -> Tensor | None:
    """[K] the sequences whose media could all be read: what is about a blank medium is no unit. None: all."""
    bad: Tensor | None = batch.get("bad_media")
    return None if bad is None or not bool(bad.any()) else bad == 0


def readable_pairs(batch: Mapping[str, Any]) -> Tensor | None:
    """[P] the same of pairs."""
    found = readable(batch)
    return None if found is None else found[: len(found) // 2 * 2].view(-1, 2).all(1)


def on_device(value: Any, device: torch.device | str) -> Any:
    """A batch, or a part of one, with all its tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: on_device(one, device) for name, one in value.items()}
    return [on_device(one, device) for one in value] if isinstance(value, list) else value
