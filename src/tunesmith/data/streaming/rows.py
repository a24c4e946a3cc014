"""Rows of a stream: files one after the other, datasets mixed, in windows; read anew from any window on.

The order of rows is a function of the config and the seed, and the same in every epoch: what is drawn anew is the order
of the samples within a window. So a place in the stream is a few numbers, and going on there means passing over rows,
which are not even parsed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from tunesmith.data.opened import OpenDataset
from tunesmith.data.rows import Row, Unparsed
from tunesmith.data.streaming.turns import Turns

__all__ = ["RowStream", "RowWindow", "StreamRow"]

MOST_CHARACTERS = 2**28
"""Text that a window may hold: one of long documents ends before it has all its rows, so that memory stays bounded."""


class StreamRow(NamedTuple):
    """A row, the number of its dataset, and its number in that dataset."""

    dataset: int
    number: int
    row: Row


@dataclass(frozen=True, slots=True)
class RowWindow:
    """Rows of the datasets, in the order of the mix. `number` counts the windows of all epochs. A RowStream that is
    given `state` begins with this window."""

    epoch: int
    number: int
    state: Mapping[str, Any]
    rows: Sequence[StreamRow]


class RowStream:
    """Windows without end. `held`: (dataset, number of the row in it) of rows that are never read."""

    def __init__(
        self,
        datasets: Sequence[OpenDataset],
        window: int,
        *,
        strategy: str,
        probs: Sequence[float] | None,
        seed: int,
        held: Collection[tuple[int, int]] = (),
    ) -> None:
        self._datasets, self._window = datasets, window
        self._strategy, self._probs, self._seed = strategy, probs, seed
        self._held = frozenset(held)

    def windows(self, state: Mapping[str, Any] | None = None) -> Iterator[RowWindow]:
        """From `state` on, which a RowWindow or `beginning` has given. Raises what the readers of files raise."""
        here = deepcopy(dict(state or self.beginning()))
        while True:
            readers = [_Reader(one, at) for one, at in zip(self._datasets, here["places"], strict=True)]
            turns = self._turns(here["turns"])
            over = False
            while not over:
                now = {**here, "places": [reader.place() for reader in readers], "turns": turns.state()}
                rows, over = self._read(readers, turns)
                if rows:
                    yield RowWindow(here["epoch"], here["window"], now, rows)
                    here["window"] += 1
            here = {**self.beginning(), "epoch": here["epoch"] + 1, "window": here["window"]}

    def beginning(self) -> dict[str, Any]:
        places = [[0, 0, 0] for _ in self._datasets]
        return {"epoch": 0, "window": 0, "places": places, "turns": self._turns(None).state()}

    def _turns(self, state: Mapping[str, Any] | None) -> Turns:
        return Turns(len(self._datasets), self._strategy, self._probs, self._seed, state)

    def _read(self, readers: Sequence[_Reader], turns: Turns) -> tuple[list[StreamRow], bool]:
        """(the rows of the next window, was the last one the last of the epoch)"""
        rows: list[StreamRow] = []
        characters = 0
        while len(rows) < self._window and characters < MOST_CHARACTERS:
            dataset = turns.next()
            reader = readers[dataset]
            number, row = reader.take()
            if (dataset, number) not in self._held:
                rows.append(StreamRow(dataset, number, row))
                characters += _characters(row.values)
            if reader.at_end:
                if turns.used_up(dataset):
                    return rows, True
                if turns.again:
                    reader.restart()
        return rows, False


class _Reader:
    """The rows of one dataset, looked at one ahead: a mix has to know which row is the last."""

    def __init__(self, opened: OpenDataset, place: Sequence[int]) -> None:
        self._opened = opened
        self._most = opened.max_samples
        self._go_to(*place)

    def _go_to(self, file: int, row: int, taken: int) -> None:
        self._file, self._row, self._taken = file, row, taken
        self._rows: Iterator[Row] | None = None
        self._next: Row | None = None
        self._advance()

    @property
    def at_end(self) -> bool:
        return self._next is None

    def place(self) -> list[int]:
        """[file, row in it, rows of the dataset before it] of the next row."""
        return [self._file, self._row, self._taken]

    def restart(self) -> None:
        self._go_to(0, 0, 0)

    def take(self) -> tuple[int, Row]:
        """(its number in the dataset, the row)"""
        row, number = self._next, self._taken
        assert row is not None, "a dataset that is used up has no turn"
        self._row += 1
        self._taken += 1
        self._advance()
        return number, row

    def _advance(self) -> None:
        self._next = None
        while self._file < len(self._opened.files) and (self._most is None or self._taken < self._most):
            if self._rows is None:
                self._rows = islice(self._opened.files[self._file].rows(), self._row, None)
            self._next = next(self._rows, None)
            if self._next is not None:
                return
            self._rows, self._file, self._row = None, self._file + 1, 0


def _characters(value: Any) -> int:
    """About as many as the texts in a row have."""
    if isinstance(value, str | Unparsed):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_characters, value.values()))
    if isinstance(value, list):
        return sum(map(_characters, value))
    return 8
