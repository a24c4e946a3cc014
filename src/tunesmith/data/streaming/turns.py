"""Which dataset gives the next row of a stream, when nobody knows how many rows there are.

The same strategies as `mix.mix`, told row by row; without `probs` also the same order. What was drawn is a function of
the seed and of how often was drawn, so a few plain values say where to go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["Turns"]

_DRAWN_AT_ONCE = 1024


class Turns:
    """Turns of `count` datasets. `next()` says whose it is; `used_up(dataset)` is told after its last row and says
    whether this was the last row of all (else `again` says whether the dataset is to begin anew)."""

    def __init__(
        self,
        count: int,
        strategy: str,
        probs: Sequence[float] | None,
        seed: int,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        assert probs is None or len(probs) == count, "the config checks interleave_probs"
        self._strategy = strategy
        self._probs = None if probs is None else np.asarray(probs, dtype=np.float64)
        self._seed = seed
        state = state or {"alive": list(range(count)), "used": [], "turn": 0, "drawn": 0}
        self._alive: list[int] = list(state["alive"])
        self._used: set[int] = set(state["used"])
        self._turn, self._drawn = int(state["turn"]), int(state["drawn"])
        self._draws: tuple[int, np.ndarray] = (-1, np.zeros(0))

    @property
    def again(self) -> bool:
        return self._strategy == "interleave_over"

    def next(self) -> int:
        if self._strategy == "concat" or len(self._alive) == 1:
            return self._alive[0]
        if self._probs is None:
            self._turn += 1
            return self._alive[(self._turn - 1) % len(self._alive)]
        shares = np.cumsum(self._probs[self._alive])
        place = int(np.searchsorted(shares, self._draw() * shares[-1], side="right"))
        return self._alive[min(place, len(self._alive) - 1)]

    def used_up(self, dataset: int) -> bool:
        if self._strategy == "interleave_under":
            return True
        self._used.add(dataset)
        if self._strategy != "interleave_over":
            self._alive.remove(dataset)
            self._turn = 0
            return not self._alive
        return self._used.issuperset(self._alive)

    def state(self) -> dict[str, Any]:
        """Plain values from which `Turns` goes on."""
        return {"alive": list(self._alive), "used": sorted(self._used), "turn": self._turn, "drawn": self._drawn}

    def _draw(self) -> float:
        """The next number of [0, 1)."""
        chunk, place = divmod(self._drawn, _DRAWN_AT_ONCE)
        if self._draws[0] != chunk:
            self._draws = chunk, np.random.default_rng((self._seed, chunk)).random(_DRAWN_AT_ONCE)
        self._drawn += 1
        return float(self._draws[1][place])
