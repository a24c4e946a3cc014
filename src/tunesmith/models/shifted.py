"""Shifted sparse attention of LongLoRA (https://arxiv.org/abs/2309.12307, section 3.2), in training only.

A sequence is cut into four groups. In the first half of the heads a token attends within its group; in the other half
the groups are shifted by half a group, so that what is known flows across their borders:

    heads 0 .. H/2 - 1    [ group 0 ][ group 1 ][ group 2 ][ group 3 ]
    heads H/2 .. H - 1    [   ][ group 0 ][ group 1 ][ group 2 ][    ]

The paper rolls the sequence, so its last half group would also stand before its first tokens, which then see the
future; the two halves at the ends are groups of their own here, as the paper says they can be.

T positions, H heads, G heads of keys and values, D size of a head.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tunesmith.models.groups import attend_in_groups

if TYPE_CHECKING:
    from tunesmith.models.attention import LayerAttention

__all__ = ["GROUPS", "attend_shifted", "group_bounds"]

GROUPS = 4
"""Groups of a sequence, as in the paper."""


def group_bounds(bounds: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Bounds of the groups of all sequences, as they are and shifted by half a group. A sequence of L tokens has groups
    of L / 4, rounded up."""
    plain, shifted = [], []
    for start, end in pairwise(bounds):
        size = -(-(end - start) // GROUPS)
        plain += range(start, end, size)
        shifted += [*([start] if size > 1 else ()), *range(start + size // 2, end, size)]
    return (*plain, bounds[-1]), (*shifted, bounds[-1])


def attend_shifted(one: LayerAttention, query: Tensor, key: Tensor, value: Tensor, bounds: tuple[int, ...]) -> Tensor:
    """query [1, H, T, D], key and value [1, G, T, D] -> [1, T, H, D]."""
    heads, kept = query.shape[1], key.shape[1]
    if kept % 2:  # no half of these
        key, value = (tensor.repeat_interleave(heads // kept, dim=1) for tensor in (key, value))
        kept = heads
    parts = []
    for own, (start, end) in zip(group_bounds(bounds), ((0, 0.5), (0.5, 1)), strict=True):
        rows = slice(int(heads * start), int(heads * end))
        shared = slice(int(kept * start), int(kept * end))
        half = copy.copy(one)
        half.sinks = None if one.sinks is None else one.sinks[rows]
        parts.append(attend_in_groups(half.causal, query[:, rows], key[:, shared], value[:, shared], own))
    return torch.cat(parts, dim=2)
