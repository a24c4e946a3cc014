"""One dataset to a folder of encoded samples, uncut: in blocks, in processes where that pays, in bounded memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tunesmith.data.bad_rows import BadRows
from tunesmith.data.blocks import BlockEncoder, BlockResult
from tunesmith.data.mix import distinct
from tunesmith.data.notes import Notes
from tunesmith.data.opened import OpenDataset
from tunesmith.data.progress import Estimate, Progress
from tunesmith.data.report import DatasetReport
from tunesmith.data.rows import Row, RowBlock
from tunesmith.data.store import SampleSink, SampleWriter
from tunesmith.data.workers import available_workers, map_in_order
from tunesmith.render.errors import QuickWayFault

if TYPE_CHECKING:
    from tunesmith.render import Renderer

__all__ = ["ORDER", "STATE", "Progress", "Running", "order_of", "prepare"]

Ints = npt.NDArray[np.int64]
MANY_BYTES = 4_000_000
"""So much and more is worth starting processes and a faster encoder for: about 5,000 rows of 200 tokens."""
STATE, ORDER = "state.json", "order.npy"
"""Files beside the samples: what became of the rows; with num_samples, the examples in the order of the sample."""


@dataclass(slots=True)
class Running:
    """What is added up over the blocks of a dataset."""

    report: DatasetReport
    bad: BadRows = field(default_factory=BadRows)
    columns: dict[str, None] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)
    statistics: Counter[str] = field(default_factory=Counter)
    ordered: bool = False
    positions: list[Ints] = field(default_factory=list)
    """Where the rows are read in an order of their own: which of them each example is."""
    kept: int = 0

    def add(self, result: BlockResult, writer: SampleSink) -> None:
        for fault in result.faults:
            self.bad.add(fault.origin, fault.code, fault.reason, fault.field, fault.got, fault.fix)
            self.report.drop(fault.told, fault.origin)
        for reason, origin in result.untrained:
            self.report.drop(reason, origin)
        table = result.table
        if len(table):
            number = [self.files.setdefault(name, len(self.files)) for name in result.files]
            table[:, 2] += self.kept
            table[:, 3] = np.array(number, dtype=np.int64)[table[:, 3]]
            writer.add(result.ids, result.trained, result.weights, table)
        if self.ordered:
            self.positions.append(result.positions + self.report.rows)
        self.kept += len(result.positions)
        self.report.rows += result.rows
        self.columns.update(result.columns)
        self.notes.merge(result.notes)
        self.statistics.update(result.statistics)


def prepare(
    opened: OpenDataset,
    renderer: Renderer,
    folder: Path,
    *,
    block: int,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> None:
    """Encode all rows of a dataset into `folder`. `block`: rows that go through at a time; `workers`: processes
    (None: as many as pay; 0: this one only).

    Raises DataError where the file cannot be read on, or where no row has a column that is needed.
    """
    large = opened.size is None or opened.size >= MANY_BYTES
    if workers is None:
        workers = available_workers() if large else 0
    if large:
        renderer.speed_up()
    while True:
        try:
            running = _encode(opened, renderer, folder, block, workers, on_progress)
            break
        except QuickWayFault as fault:  # make it anew, the long way
            renderer.give_up_quick_ways(fault)
    opened.raise_for_absent(running.columns)
    if opened.chosen is not None:
        np.save(folder / ORDER, order_of(opened.chosen, np.concatenate([np.zeros(0, np.int64), *running.positions])))
    state = {
        "rows": running.report.rows,
        "dropped": dict(running.report.dropped),
        "dropped_places": running.report.dropped_places,
        "bad": running.bad.to_list(),
        "examples": running.kept,
        "files": list(running.files),
        "notices": [*opened.notices, *running.notes.lines()],
        "tallies": dict(running.notes.tallies),
        "statistics": dict(running.statistics),
        "encoder": renderer.encoder_name,
    }
    (folder / STATE).write_text(json.dumps(state, ensure_ascii=False, indent=1), encoding="utf-8")


def order_of(chosen: Ints, positions: Ints) -> Ints:
    """The examples in the order of the sample. `chosen`: numbers of rows of the files; `positions` [E]: which of the
    rows that were read (each once, in order) became an example."""
    read = distinct(chosen)
    example = np.full(len(read), -1, dtype=np.int64)
    example[positions] = np.arange(len(positions))
    found: Ints = example[np.searchsorted(read, chosen)]
    return found[found >= 0]


def _encode(
    opened: OpenDataset,
    renderer: Renderer,
    folder: Path,
    block: int,
    workers: int,
    on_progress: Progress | None,
) -> Running:
    spec = opened.spec
    encoder = BlockEncoder(opened.format, renderer, trusted_markup=spec.trusted_markup, weight=spec.weight)
    running = Running(DatasetReport(spec.name, ""), ordered=spec.num_samples is not None)
    total = Estimate(opened.size)
    with SampleWriter(folder) as writer:
        for result in map_in_order(encoder, total.watch(_blocks(opened.rows(), block)), workers):
            running.add(result, writer)
            if on_progress is not None:
                on_progress(running.report.rows, total.rows)
    return running


def _blocks(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while block := RowBlock(islice(rows, size)):
        yield block
