"""Attention over answers to one prompt, which stands in the row once.

    [prompt, answer | other answer | ...]      each other answer sees the prompt and itself

The first answer and its prompt are one sequence. A sequence behind it goes on where the prompt ends: its positions do,
its queries see the keys of the prompt and its own, and its first token is predicted where the prompt ends.

B = 1 row, T positions, H heads, G heads of keys and values, D size of a head; P tokens of a prompt, L of an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tunesmith.models.attention import LayerAttention

__all__ = ["Segment", "attend_shared"]


class Segment(NamedTuple):
    """Positions `start` to `end` of a row are a sequence. Before them it has those from `first` to `last`, the
    beginning of an earlier sequence; none where these are equal."""

    start: int
    end: int
    first: int
    last: int

    @property
    def goes_on(self) -> bool:
        return self.first != self.last


def attend_shared(
    one: LayerAttention, query: Tensor, key: Tensor, value: Tensor, segments: Sequence[Segment]
) -> Tensor:
    """query [1, H, T, D], key and value [1, G, T, D] -> [1, T, H, D]. The segments hold all of the row, in order."""
    sizes = [segment.end - segment.start for segment in segments]
    pieces = zip(segments, *(tensor.split(sizes, dim=2) for tensor in (query, key, value)), strict=True)
    whole: dict[int, tuple[Tensor, Tensor]] = {}
    parts = []
    for segment, queries, keys, values in pieces:
        if not segment.goes_on:
            whole[segment.start] = keys, values
            parts.append(one.causal(queries, keys, values).transpose(1, 2))
            continue
        before, size = whole[segment.first], segment.last - segment.first
        keys = torch.cat([before[0][:, :, :size], keys], dim=2)
        values = torch.cat([before[1][:, :, :size], values], dim=2)
        seen = _seen(queries.shape[2], size, one.window, queries.device)
        parts.append(one(queries, keys, values, seen, causal=False).transpose(1, 2))
    return torch.cat(parts, dim=1)


@lru_cache(maxsize=64)  # the layers of a model ask for the same ones, one after the other
def _seen(length: int, before: int, window: int | None, device: torch.device) -> Tensor:
    """bool [L, P + L]: which keys each query sees, at most `window` of them."""
    place = torch.arange(before + length, device=device)
    distance = place[before:, None] - place
    seen = distance >= 0
    return seen if window is None else seen & (distance < window)
