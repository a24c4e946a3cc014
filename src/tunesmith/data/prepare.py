"""One dataset to a folder of encoded samples, uncut: in blocks, in processes where that pays, in bounded memory.

A journal in the folder tells how far it is, so that the next process goes on behind what a killed one has done. What
comes out is the same to the byte.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tunesmith.core.log import get_logger
from tunesmith.data.bad_rows import BadRows
from tunesmith.data.blocks import BlockResult
from tunesmith.data.journal import Journal
from tunesmith.data.mix import distinct
from tunesmith.data.notes import Notes
from tunesmith.data.opened import OpenDataset
from tunesmith.data.progress import Estimate, Progress
from tunesmith.data.report import DatasetReport
from tunesmith.data.rows import Row, RowBlock
from tunesmith.data.store import GrowingFiles, SampleSink, SampleWriter
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
_POSITIONS = ".positions.i64"  # which of the rows that are read each example is; only until ORDER is made of it


@dataclass(slots=True)
class Running:
    """What is added up over the blocks of a dataset."""

    report: DatasetReport
    bad: BadRows = field(default_factory=BadRows)
    columns: dict[str, None] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)
    statistics: Counter[str] = field(default_factory=Counter)
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
            writer.add(result.ids, result.trained, result.weights, table, result.media)
        self.kept += len(result.positions)
        self.report.rows += result.rows
        self.columns.update(result.columns)
        self.notes.merge(result.notes)
        self.statistics.update(result.statistics)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `from_dict` makes it again."""
        return {
            "rows": self.report.rows,
            "dropped": dict(self.report.dropped),
            "dropped_places": self.report.dropped_places,
            "bad": self.bad.to_list(),
            "columns": list(self.columns),
            "files": list(self.files),
            **self.notes.to_dict(),
            "statistics": dict(self.statistics),
            "examples": self.kept,
        }

    @classmethod
    def from_dict(cls, name: str, values: Mapping[str, Any]) -> Running:
        return cls(
            DatasetReport(name, "", values["rows"], Counter(values["dropped"]), values["dropped_places"]),
            BadRows.from_list(values["bad"]),
            dict.fromkeys(values["columns"]),
            {file: number for number, file in enumerate(values["files"])},
            Notes.from_dict(values),
            Counter(values["statistics"]),
            values["examples"],
        )


def prepare(
    opened: OpenDataset,
    renderer: Renderer,
    folder: Path,
    *,
    block: int,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> None:
    """Encode all rows of a dataset into `folder`, behind what an interrupted call for the same dataset and renderer has
    left there. `block`: rows that go through at a time; `workers`: processes (None: as many as pay; 0: this one only).

    What `on_progress` raises ends it, and so does Ctrl-C; the rows that were done are kept. Raises DataError where the
    file cannot be read on, or where no row has a column that is needed.
    """
    large = opened.size is None or opened.size >= MANY_BYTES
    if workers is None:
        workers = available_workers() if large else 0
    if large:
        renderer.speed_up()
    encoding = _Encoding(opened, renderer, folder, block, workers, on_progress)
    while True:
        try:
            running = encoding.run()
            break
        except QuickWayFault as fault:  # make it anew, the long way
            renderer.give_up_quick_ways(fault)
            encoding.begin_anew(fault)
    opened.raise_for_absent(running.columns)
    if opened.chosen is not None:
        positions = np.fromfile(folder / _POSITIONS, np.int64)
        np.save(folder / ORDER, order_of(opened.chosen, positions))
    notices = [*opened.notices, *running.notes.lines()]
    state = {**running.to_dict(), "notices": notices, "encoder": renderer.encoder_name}
    (folder / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")


def order_of(chosen: Ints, positions: Ints) -> Ints:
    """The examples in the order of the sample. `chosen`: numbers of rows of the files; `positions` [E]: which of the
    rows that were read (each once, in order) became an example."""
    read = distinct(chosen)
    example = np.full(len(read), -1, dtype=np.int64)
    example[positions] = np.arange(len(positions))
    found: Ints = example[np.searchsorted(read, chosen)]
    return found[found >= 0]


@dataclass(slots=True)
class _Encoding:
    """The pass over the rows of one dataset, from where the journal of the folder says on."""

    opened: OpenDataset
    renderer: Renderer
    folder: Path
    block: int
    workers: int
    on_progress: Progress | None
    given_up: str | None = None
    """Why no quick way of rendering is taken."""

    def run(self) -> Running:
        """Raises QuickWayFault where all of it has to be made anew."""
        spec, journal = self.opened.spec, Journal(self.folder)
        entry = self._entry(journal)
        running = Running(DatasetReport(spec.name, "")) if entry is None else Running.from_dict(spec.name, entry)
        encoder = self.opened.encoder(self.renderer)
        rows, done = self.opened.rows(), running.report.rows
        deque(islice(rows, done), maxlen=0)
        total = Estimate(self.opened.size, done)
        whole = True  # nothing of a block is added without the rest of it
        with (
            GrowingFiles(self.folder, None if entry is None else entry["sizes"]) as files,
            closing(map_in_order(encoder, total.watch(_blocks(rows, self.block)), self.workers)) as results,
        ):
            writer = SampleWriter(files)
            if spec.num_samples is not None:
                files.append(_POSITIONS, np.zeros(0, np.int64))
            try:
                for result in results:
                    whole = False
                    if spec.num_samples is not None:
                        files.append(_POSITIONS, result.positions + running.report.rows)
                    running.add(result, writer)
                    whole = True
                    if journal.is_due:
                        journal.write(self._told(running, total.rows), files)
                    if self.on_progress is not None:
                        self.on_progress(running.report.rows, total.rows)
            except QuickWayFault:
                raise
            except BaseException:
                if whole:
                    with suppress(OSError):  # the entry before holds as well
                        journal.write(self._told(running, total.rows), files)
                raise
        return running

    def begin_anew(self, fault: QuickWayFault) -> None:
        """After a fault: nothing that was made counts, and the next process takes no quick way either."""
        self.given_up = str(fault)
        with GrowingFiles(self.folder) as files:
            Journal(self.folder).write(self._told(Running(DatasetReport(self.opened.spec.name, "")), None), files)

    def _told(self, running: Running, total: int | None) -> dict[str, Any]:
        encoder = self.renderer.encoder_name
        return {**running.to_dict(), "encoder": encoder, "given_up": self.given_up, "total": total}

    def _entry(self, journal: Journal) -> dict[str, Any] | None:
        """What an earlier process has done, unless another encoder did it: the report names one."""
        entry = journal.read()
        if entry is None:
            return None
        if entry["given_up"] is not None and self.given_up is None:
            self.given_up = entry["given_up"]
            self.renderer.give_up_quick_ways(QuickWayFault(self.given_up))
        if entry["encoder"] != self.renderer.encoder_name:
            journal.remove()
            return None
        if entry["rows"]:
            of = "" if entry["total"] is None else f" of about {entry['total']:,}"
            get_logger().info(
                "preparing %s: %s%s rows were done before", self.opened.spec.name, f"{entry['rows']:,}", of
            )
        return entry


def _blocks(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while block := RowBlock(islice(rows, size)):
        yield block
