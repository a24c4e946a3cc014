"""Keys and values that finished requests leave for those that begin with the same tokens. The longest unused go first
when memory is wanted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tunesmith.engines.batching.slots import Memory, Row

__all__ = ["MOST", "SHORTEST", "Prefixes", "common"]

SHORTEST = 16
"""Fewer tokens in common are computed again: that is cheaper than to look after them."""

MOST = 256
"""More are not kept, also where there is memory for them."""

_Beginning: TypeAlias = tuple[str | None, bytes]


@dataclass(slots=True, eq=False)
class _Kept:
    adapter: str | None
    ids: NDArray[np.int64]
    row: Row


class Prefixes:
    """At most `MOST` of them, found by the tokens that they begin with."""

    def __init__(self) -> None:
        self._kept: dict[_Kept, None] = {}  # the one that was used last is the last one
        self._by_beginning: dict[_Beginning, list[_Kept]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def tokens(self) -> int:
        """That are kept."""
        return sum(one.row.capacity for one in self._kept)

    def find(self, adapter: str | None, ids: NDArray[np.int64]) -> tuple[Row | None, int]:
        """The row that has most tokens in common with `ids` from their beginning on, `SHORTEST` at least, and how
        many."""
        alike = self._by_beginning.get(_beginning(adapter, ids), ())
        best = max(alike, key=lambda one: common(one.ids, ids), default=None)
        if best is None:
            return None, 0
        self._kept[best] = self._kept.pop(best)
        return best.row, common(best.ids, ids)

    def keep(self, memory: Memory, adapter: str | None, ids: NDArray[np.int64], row: Row) -> None:
        """A row of `SHORTEST` tokens at least. Those that are a beginning of it say nothing more, and go."""
        alike = self._by_beginning.get(_beginning(adapter, ids), ())
        self._drop(memory, [one for one in alike if common(one.ids, ids) == len(one.ids)])
        one = _Kept(adapter, ids, row)
        self._kept[one] = None
        self._by_beginning.setdefault(_beginning(adapter, ids), []).append(one)
        if len(self._kept) > MOST:
            self.give_back(memory)

    def forget(self, memory: Memory, adapter: str | None) -> None:
        """All of one adapter."""
        self._drop(memory, [one for one in self._kept if one.adapter == adapter])

    def give_back(self, memory: Memory) -> bool:
        """Drop the one that was unused for longest; False: there is none."""
        oldest = [*islice(self._kept, 1)]
        self._drop(memory, oldest)
        return bool(oldest)

    def _drop(self, memory: Memory, gone: Iterable[_Kept]) -> None:
        for one in gone:
            del self._kept[one]
            beginning = _beginning(one.adapter, one.ids)
            alike = self._by_beginning[beginning]
            alike.remove(one)
            if not alike:
                del self._by_beginning[beginning]
            memory.drop(one.row)


def _beginning(adapter: str | None, ids: NDArray[np.int64]) -> _Beginning:
    return adapter, ids[:SHORTEST].tobytes()


def common(one: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    """How many tokens both begin with."""
    size = min(len(one), len(other))
    differing = np.flatnonzero(one[:size] != other[:size])
    return int(differing[0]) if len(differing) else size
