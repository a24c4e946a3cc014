"""What of a batch the model reads."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from tunesmith.models.attention import SharedBounds
from tunesmith.models.seeing import TOKEN_INPUTS
from tunesmith.models.shared import Segment

__all__ = ["IGNORE", "model_inputs"]

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
