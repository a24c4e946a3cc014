"""Keys and values that finished requests leave for those that begin with the same tokens. The longest unused go first
when memory is wanted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunesmith.engines.batching.slots import Memory, Row

__all__ = ["SHORTEST", "Prefixes", "common"]

SHORTEST = 16
"""Fewer tokens in common are computed again: that is cheaper than to look after them."""


@dataclass(slots=True, eq=False)
class _Kept:
    adapter: str | None
    ids: NDArray[np.int64]
    row: Row


class Prefixes:
    def __init__(self) -> None:
        self._kept: list[_Kept] = []  # the one that was used last is the last one

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, adapter: str | None, ids: NDArray[np.int64]) -> tuple[Row | None, int]:
        """The row that has most tokens in common with `ids` from their beginning on, and how many."""
        best, most = None, 0
        for one in self._kept:
            if one.adapter == adapter and (length := common(one.ids, ids)) > most:
                best, most = one, length
        if best is None:
            return None, 0
        self._kept.remove(best)
        self._kept.append(best)
        return best.row, most

    def keep(self, memory: Memory, adapter: str | None, ids: NDArray[np.int64], row: Row) -> None:
        """Those that are a beginning of this one say nothing more, and go."""
        same = [one for one in self._kept if one.adapter == adapter]
        self._drop(memory, [one for one in same if common(one.ids, ids) == len(one.ids)])
        self._kept.append(_Kept(adapter, ids, row))

    def forget(self, memory: Memory, adapter: str | None) -> None:
        """All of one adapter."""
        self._drop(memory, [one for one in self._kept if one.adapter == adapter])

    def give_back(self, memory: Memory) -> bool:
        """Drop the one that was unused for longest; False: there is none."""
        oldest = self._kept[:1]
        self._drop(memory, oldest)
        return bool(oldest)

    def _drop(self, memory: Memory, gone: Iterable[_Kept]) -> None:
        for one in list(gone):
            self._kept.remove(one)
            memory.drop(one.row)


def common(one: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    """How many tokens both begin with."""
    size = min(len(one), len(other))
    differing = np.flatnonzero(one[:size] != other[:size])
    return int(differing[0]) if len(differing) else size
