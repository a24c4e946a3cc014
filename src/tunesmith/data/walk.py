"""The examples of a dataset one after the other, as a run reads them, without keeping them."""

from __future__ import annotations

from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tunesmith.core.types import Example
from tunesmith.data.bad_rows import BadRows
from tunesmith.data.notes import Notes
from tunesmith.data.prepare import order_of
from tunesmith.data.progress import Estimate, Progress
from tunesmith.data.report import DatasetReport

if TYPE_CHECKING:
    from tunesmith.data.blocks import Fault
    from tunesmith.data.opened import OpenDataset
    from tunesmith.data.rows import Row
    from tunesmith.data.spec import DatasetSpec

__all__ = ["Walk", "fetch"]

_BLOCK = 256
"""Rows that are converted at a time."""
Ints = npt.NDArray[np.int64]


class Walk:
    """One dataset. Going through it reads its files; what is counted is counted the first time, to the end."""

    def __init__(self, opened: OpenDataset, use: str) -> None:
        self.opened = opened
        self.report = DatasetReport(opened.spec.name, use)
        self.bad = BadRows()
        self.notices: list[str] = []
        self.tallies: Counter[str] = Counter()
        self.examples = 0
        """Rows that an example was made of, each once."""
        self.block = _BLOCK
        self.notify: Progress | None = None
        """Called after each block of the first time."""
        self.on_fault: Callable[[Fault], None] | None = None
        """Called with each row that cannot be used, the first time."""
        self._positions = array("q")
        self._counted = False

    @property
    def spec(self) -> DatasetSpec:
        return self.opened.spec

    @property
    def positions(self) -> Ints:
        """With num_samples: which of the rows that were read each example is. They are not kept otherwise."""
        return np.array(self._positions, dtype=np.int64)

    @property
    def order(self) -> Ints:
        """The examples in the order in which a run reads them: with num_samples that of the sample, with repeats."""
        chosen = self.opened.chosen
        return np.arange(self.examples) if chosen is None else order_of(chosen, self.positions)

    def __iter__(self) -> Iterator[Example]:
        if self._counted:
            for block in self._blocks():
                yield from self.opened.convert(block).examples
        else:
            yield from self._counting()

    def count(self) -> None:
        """Go through it for the counts alone."""
        deque(self, maxlen=0)

    def _counting(self) -> Iterator[Example]:
        columns: dict[str, None] = {}
        total = Estimate(self.opened.size)
        for block in total.watch(self._blocks()):
            found = self.opened.convert(block)
            if self.spec.num_samples is not None:
                self._positions.extend(self.report.rows + position for position in found.positions)
            self.report.rows += found.rows
            self.examples += len(found.examples)
            columns.update(found.columns)
            for fault in found.faults:
                self.bad.add(fault.origin, fault.code, fault.reason, fault.field, fault.got, fault.fix)
                self.report.drop(fault.told, fault.origin)
                if self.on_fault is not None:
                    self.on_fault(fault)
            yield from found.examples
            if self.notify is not None:
                self.notify(self.report.rows, total.rows)
        self._counted = True
        self.opened.raise_for_absent(columns)
        notes = self.opened.format.notes if self.opened.format is not None else Notes()
        self.tallies = Counter(notes.tallies)  # the notes go on counting when the rows are read again
        self.notices = [*self.opened.notices, *notes.lines()]

    def _blocks(self) -> Iterator[list[Row]]:
        rows = self.opened.rows()
        while block := list(islice(rows, self.block)):
            yield block


def fetch(datasets: Sequence[Walk | Sequence[Example]], wanted: set[int]) -> Mapping[int, Example]:
    """The examples of these numbers, counted over all datasets in the order of their rows."""
    found: dict[int, Example] = {}
    number = 0
    for examples in datasets:
        for example in examples:
            if len(found) == len(wanted):
                return found
            if number in wanted:
                found[number] = example
            number += 1
    return found
