"""Cut a sequence to cutoff_len without teaching a false end."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Cut", "cut_point"]


class Cut(NamedTuple):
    """How many tokens to keep (0: drop the sample) and what was lost."""

    length: int
    turns_dropped: int = 0
    answer_cut: bool = False


def cut_point(trained: npt.NDArray[np.bool_], cutoff_len: int) -> Cut:
    """Where to cut a sequence with this mask [T] so that at most `cutoff_len` tokens remain.

    A turn ends where a run of trained tokens ends (its stop token). In this order:
    - as many whole turns from the start as fit;
    - if not even the first answer fits, its beginning: cut at cutoff_len and without a stop, so that no false end is
      learned;
    - if the first answer begins at or behind cutoff_len, nothing: there would be nothing to learn.
    A sequence that is trained throughout has one run and is therefore cut at cutoff_len.
    """
    if len(trained) <= cutoff_len:
        return Cut(len(trained))
    edges = np.diff(trained.astype(np.int8), prepend=0, append=0)
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    whole = int(np.searchsorted(ends, cutoff_len, side="right"))
    if whole:
        return Cut(int(ends[whole - 1]), turns_dropped=len(ends) - whole)
    if len(starts) and starts[0] < cutoff_len:
        return Cut(cutoff_len, turns_dropped=len(starts) - 1, answer_cut=True)
    return Cut(0)
