"""Which rows, in which order: sampling, mixing several datasets, splitting off a validation part.

Pure functions over numbers of rows: the same arguments give the same answer, on any machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
import numpy.typing as npt

__all__ = ["MIX_STRATEGIES", "distinct", "hold_out", "mix", "sample"]

MIX_STRATEGIES = ("concat", "interleave_under", "interleave_over", "interleave_once")

Indices = npt.NDArray[np.int64]
ROUNDING = 1e-9  # 0.07 * 100 is 7.000000000000001 and means 7


def sample(rows: int, wanted: int, seed: int) -> Indices:
    """`wanted` of `rows` rows at random. If there are fewer, all of them, and then again others at random."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(rows)[:wanted]
    if wanted > rows:
        order = np.concatenate([order, generator.choice(rows, wanted - rows)])
    return order.astype(np.int64)


def mix(sizes: Sequence[int], strategy: str, probs: Sequence[float] | None, seed: int) -> Indices:
    """The order in which the rows of several datasets are read, as indices into their concatenation.

    concat            one dataset after the other
    interleave_under  by turns (with `probs`: drawn by these weights) until the first dataset is used up
    interleave_over   by turns until each has been used up once; a used-up dataset starts again
    interleave_once   by turns until all are used up; each row once
    """
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    if strategy == "concat" or len(sizes) < 2:
        return np.arange(starts[-1], dtype=np.int64)
    assert all(sizes), "an empty dataset cannot be mixed"
    assert probs is None or (len(probs) == len(sizes) and min(probs) > 0), "the config checks interleave_probs"
    datasets = _turns(sizes, strategy, probs, seed)
    rank = np.zeros(len(datasets), dtype=np.int64)  # how often the dataset has been drawn before
    for index in range(len(sizes)):
        drawn = datasets == index
        rank[drawn] = np.arange(np.count_nonzero(drawn))
    return starts[datasets] + rank % np.asarray(sizes, dtype=np.int64)[datasets]


def _turns(sizes: Sequence[int], strategy: str, probs: Sequence[float] | None, seed: int) -> Indices:
    """The dataset of each draw."""
    generator = np.random.default_rng(seed)
    left = np.asarray(sizes, dtype=np.int64).copy()
    names = np.arange(len(sizes), dtype=np.int64)
    drawn: list[Indices] = []
    while True:
        if probs is None:
            draws = np.tile(names, left.max())
        else:
            weights = np.asarray(probs, dtype=np.float64)[names]
            draws = generator.choice(names, size=left.max() * len(names), p=weights / weights.sum())
        taken, done = _take(draws, left, strategy)
        drawn.append(draws[:taken])
        if done:
            return np.concatenate(drawn)
        if strategy == "interleave_once":
            names = np.flatnonzero(left > 0)


def _take(draws: Indices, left: Indices, strategy: str) -> tuple[int, bool]:
    """(how many of the draws count, is it the end); `left` is brought up to date."""
    for count, dataset in enumerate(draws, 1):
        left[dataset] -= 1
        if left[dataset] > 0:
            continue
        if strategy == "interleave_under":
            return count, True
        if (left <= 0).all():
            return count, True
        if strategy == "interleave_once":
            return count, False  # draw anew among the others
    return len(draws), False


def hold_out(order: Indices, val_size: float, seed: int) -> tuple[Indices, Indices]:
    """(train, validation) of a mixed order. A row that the mix repeats is on one side only.

    `val_size` below 1 is a share of the different rows, rounded up, else their number. Training rows keep their order.
    """
    rows = distinct(order)
    count = ceil(val_size * len(rows) - ROUNDING) if val_size < 1 else int(val_size)
    held = np.random.default_rng(seed).permutation(rows)[:count]
    return order[~np.isin(order, held)], held.astype(np.int64)


def distinct(values: Indices) -> Indices:
    """Sorted, each once. `np.unique` hashes, which takes a hundred times as long for numbers that are nearly sorted."""
    values = np.sort(values)
    return values[np.diff(values, prepend=values[:1] - 1) > 0]
