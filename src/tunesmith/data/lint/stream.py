"""The examples of a dataset one after the other, as a run reads them, without keeping them."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tunesmith.core.errors import Problem, TunesmithError
from tunesmith.core.types import Example
from tunesmith.data.bad_rows import BadRows
from tunesmith.data.blocks import convert
from tunesmith.data.dataset_info import resolve
from tunesmith.data.notes import Notes
from tunesmith.data.opened import OpenDataset, open_dataset
from tunesmith.data.reading import raise_together
from tunesmith.data.report import DatasetReport

if TYPE_CHECKING:
    from tunesmith.config.data import DataConfig

__all__ = ["Stream", "fetch", "open_streams"]

_BLOCK = 256  # rows
Ints = npt.NDArray[np.int64]


class Stream:
    """One dataset. Going through it reads its files; what is counted is counted the first time."""

    def __init__(self, opened: OpenDataset, use: str) -> None:
        self.opened = opened
        self.report = DatasetReport(opened.spec.name, use)
        self.bad = BadRows()
        self.notices: list[str] = []
        self.tallies: Counter[str] = Counter()
        self.positions = array("q")
        """Which of the rows that were read each example is."""
        self._counted = False

    def __iter__(self) -> Iterator[Example]:
        rows, counting = self.opened.rows(), not self._counted
        columns: dict[str, None] = {}
        trusted = self.opened.spec.trusted_markup
        while block := list(islice(rows, _BLOCK)):
            found = convert(block, self.opened.format, trusted_markup=trusted)
            if counting:
                self.positions.extend(self.report.rows + position for position in found.positions)
                self.report.rows += found.rows
                columns.update(found.columns)
                for fault in found.faults:
                    self.bad.add(fault.origin, fault.code, fault.reason, fault.field, fault.got, fault.fix)
                    self.report.drop(fault.told, fault.origin)
            yield from found.examples
        if counting:
            self._counted = True
            self.opened.raise_for_absent(columns)
            notes = self.opened.format.notes if self.opened.format is not None else Notes()
            self.tallies = notes.tallies
            self.notices = [*self.opened.notices, *notes.lines()]


def open_streams(data: DataConfig, *, stage: str, seed: int) -> list[Stream]:
    """All datasets of a config, those for training first. Raises one error with everything that is wrong with them."""
    wanted = [("train", item) for item in data.dataset] + [("eval", item) for item in data.eval_dataset]
    specs = resolve([item for _use, item in wanted], data.dataset_dir, offline=data.offline)
    streams: list[Stream] = []
    problems: list[Problem] = []
    for (use, _item), spec in zip(wanted, specs, strict=True):
        try:
            opened = open_dataset(spec, stage, max_samples=data.max_samples, seed=seed, offline=data.offline)
            streams.append(Stream(opened, use))
        except TunesmithError as error:
            problems += error.problems
    raise_together(problems)
    return streams


def fetch(streams: Sequence[Stream | Sequence[Example]], wanted: set[int]) -> Mapping[int, Example]:
    """The examples of these numbers, counted over all streams."""
    found: dict[int, Example] = {}
    number = 0
    for stream in streams:
        if len(found) == len(wanted):
            break
        for example in stream:
            if number in wanted:
                found[number] = example
            number += 1
    return found
