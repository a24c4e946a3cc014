"""FlexAttention over a flat batch: one kernel that leaves out the blocks in which no query sees a key.

A token sees a run of keys that ends with itself: from the beginning of its sequence, or of its window. So one number
for each position is all that the mask needs, and which blocks are seen follows without a matrix of T x T.

H heads, G heads of keys and values, T positions, D size of a head, n blocks of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

__all__ = ["block_mask", "flex_attend"]

BLOCK = 128
"""Positions of a block, as torch's kernels have them."""


def flex_attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: tuple[int, ...],
    *,
    window: int | None = None,
    scaling: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """query [1, H, T, D], key and value [1, G, T, D], bounds and sinks [H] as in `models.attention` -> [1, T, H, D]."""
    found, told = _kernel(query.device.type)(
        query,
        key,
        value,
        score_mod=None if softcap is None else _capped(softcap),
        block_mask=block_mask(bounds, window, query.device),
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
        return_aux=AuxRequest(lse=True),
    )
    if sinks is not None:  # exp(lse) is what the keys have together, exp(sink) what the sink takes
        found = found * torch.sigmoid(told.lse - sinks[None, :, None])[..., None].to(found.dtype)
    return found.transpose(1, 2).contiguous()


@cache
def _kernel(device: str) -> Callable[..., Any]:
    """Compiled where there is a kernel to make. A CPU computes all T x T scores, which is for tests."""
    return flex_attention if device == "cpu" else torch.compile(flex_attention, dynamic=True)


def _capped(limit: float) -> Callable[..., Tensor]:
    def score(score: Tensor, _row: Tensor, _head: Tensor, _query: Tensor, _key: Tensor) -> Tensor:
        return limit * torch.tanh(score / limit)

    return score


@lru_cache(maxsize=16)
def block_mask(bounds: tuple[int, ...], window: int | None, device: torch.device) -> BlockMask:
    """Each token sees its own sequence up to itself, `window` tokens at most. The layers of a model ask for the same
    batch one after the other."""
    sizes = np.diff(bounds)
    first = np.repeat(bounds[:-1], sizes)  # [T]: the first key that a position sees
    if window is not None:
        first = np.maximum(first, np.arange(bounds[-1]) - window + 1)
    part, full = _blocks(first)
    seen_from = torch.from_numpy(first.astype(np.int32)).to(device, non_blocking=True)

    def seen(_row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (key >= seen_from[query])

    tensors = [torch.from_numpy(one).to(device, non_blocking=True) for one in (*part, *full)]
    return BlockMask.from_kv_blocks(*tensors, BLOCK_SIZE=BLOCK, mask_mod=seen, seq_lengths=(len(first), len(first)))


def _blocks(first: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """(counts [1, 1, n], numbers [1, 1, n, n]) for each block of queries: of those blocks of keys that are seen in
    part, and of those that all queries see whole.

    `first` never falls. So a block of queries sees the keys from the `first` of its first query to itself, and all of
    it sees those from the `first` of its last query to its own first one. A last block that is not full of queries
    sees none whole: as torch counts, what fills it up sees nothing.
    """
    length = len(first)
    count = -(-length // BLOCK)
    numbers = np.arange(count)
    lowest, whole = first[numbers * BLOCK] // BLOCK, numbers.copy()
    complete = length // BLOCK
    whole[:complete] = -(-first[BLOCK - 1 :: BLOCK] // BLOCK)
    is_full = (numbers >= whole[:, None]) & (numbers < numbers[:, None])  # [queries, keys]
    is_part = (numbers >= lowest[:, None]) & (numbers <= numbers[:, None]) & ~is_full
    return _listed(is_part), _listed(is_full)


def _listed(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts and numbers of the chosen blocks of each row, the chosen ones first."""
    counts = chosen.sum(1).astype(np.int32)
    numbers = np.argsort(~chosen, axis=1, kind="stable").astype(np.int32)
    return counts[None, None], numbers[None, None]
