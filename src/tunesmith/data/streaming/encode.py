"""Windows of rows to samples, uncut: blocks of the windows to come are encoded while the present one is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tunesmith.core.errors import TunesmithError
from tunesmith.data.blocks import BlockEncoder, BlockResult
from tunesmith.data.opened import OpenDataset
from tunesmith.data.prepare import Progress, Running
from tunesmith.data.prepared import Prepared
from tunesmith.data.report import DatasetReport
from tunesmith.data.rows import Row, RowBlock
from tunesmith.data.store import HeldSamples
from tunesmith.data.streaming.rows import RowWindow
from tunesmith.data.workers import map_in_order
from tunesmith.render.errors import QuickWayFault

if TYPE_CHECKING:
    from tunesmith.render import Renderer

__all__ = ["EncodedWindow", "WindowEncoder", "Windows"]

Ints = npt.NDArray[np.int64]
Piece: TypeAlias = tuple[int, Sequence[Row]]
"""(number of the dataset, rows of it)"""
Windows: TypeAlias = Callable[[Mapping[str, Any] | None], Iterator[RowWindow]]
"""The windows from a state on; None: from the beginning."""


@dataclass(slots=True)
class EncodedWindow:
    """`prepared`: the samples of each dataset; `places`: for each, where its examples stand among the rows of the
    window; `columns`: all that its rows have."""

    window: RowWindow
    prepared: list[Prepared]
    places: list[Ints]
    columns: list[Mapping[str, None]]


@dataclass(slots=True)
class _Due:
    """A window whose pieces are being encoded; for each piece its dataset and the places of its rows in the window."""

    window: RowWindow
    pieces: deque[tuple[int, Ints]] = field(default_factory=deque)


class WindowEncoder:
    """`block`: rows of a piece of work; `workers`: processes that do it (0: this one); `ahead`: pieces that are begun
    before they are asked for. `on_progress` is called with the rows of a window that are done."""

    def __init__(
        self, datasets: Sequence[OpenDataset], renderer: Renderer, *, block: int, workers: int, ahead: int
    ) -> None:
        self._datasets, self._renderer = datasets, renderer
        self._block, self._workers, self._ahead = block, workers, ahead
        self.on_progress: Progress | None = None

    def encoded(self, windows: Windows, state: Mapping[str, Any] | None = None) -> Iterator[EncodedWindow]:
        """Raises what reading raises, once all windows before it are given. After a fault of a quick way, the window
        that is due and all later ones are made the long way."""
        while True:
            due: deque[_Due] = deque()
            try:
                yield from self._quickly(windows(state), due)
                return
            except QuickWayFault as fault:
                self._renderer.give_up_quick_ways(fault)
                state = due[0].window.state

    def _quickly(self, windows: Iterator[RowWindow], due: deque[_Due]) -> Iterator[EncodedWindow]:
        faults: list[TunesmithError] = []
        pieces = self._pieces(windows, due, faults)
        encode = _Encode([one.encoder(self._renderer) for one in self._datasets])
        results = map_in_order(encode, pieces, self._workers, ahead=self._ahead)
        making: _Making | None = None
        try:
            for result in results:
                making = making or _Making(due[0].window, self._datasets)
                making.add(result, *due[0].pieces.popleft())
                if self.on_progress is not None:
                    self.on_progress(making.rows, len(due[0].window.rows))
                if not due[0].pieces:
                    yield making.done(self._renderer.encoder_name)
                    due.popleft()
                    making = None
        finally:
            results.close()
        if faults:
            raise faults[0]

    def _pieces(self, windows: Iterator[RowWindow], due: deque[_Due], faults: list[TunesmithError]) -> Iterator[Piece]:
        """The pieces of all windows. A file that cannot be read on ends them: what was read before comes first."""
        try:
            for window in windows:
                found, blocks = _Due(window), []
                numbers = np.array([row.dataset for row in window.rows])
                for dataset in np.unique(numbers).tolist():
                    places = np.flatnonzero(numbers == dataset)
                    for part in (places[at : at + self._block] for at in range(0, len(places), self._block)):
                        found.pieces.append((dataset, part))
                        blocks.append((dataset, RowBlock(window.rows[place].row for place in part.tolist())))
                due.append(found)
                yield from blocks
        except TunesmithError as error:
            faults.append(error)


class _Encode:
    """A piece to what became of it, in whichever process."""

    def __init__(self, encoders: Sequence[BlockEncoder]) -> None:
        self._encoders = encoders

    def __call__(self, piece: Piece) -> BlockResult:
        dataset, rows = piece
        return self._encoders[dataset](rows)


class _Making:
    """A window that is being put together from its pieces."""

    def __init__(self, window: RowWindow, datasets: Sequence[OpenDataset]) -> None:
        self._window = window
        self._running = [Running(DatasetReport(one.spec.name, "train")) for one in datasets]
        self._samples = [HeldSamples() for _ in datasets]
        self._places: list[list[Ints]] = [[] for _ in datasets]

    @property
    def rows(self) -> int:
        return sum(one.report.rows for one in self._running)

    def add(self, result: BlockResult, dataset: int, places: Ints) -> None:
        self._running[dataset].add(result, self._samples[dataset])
        self._places[dataset].append(places[result.positions])

    def done(self, encoder: str) -> EncodedWindow:
        prepared, places = [], []
        for running, samples, rows in zip(self._running, self._samples, self._places, strict=True):
            tokens, example = samples.samples(list(running.files))
            prepared.append(
                Prepared(
                    tokens,
                    example,
                    running.kept,
                    running.report,
                    running.bad,
                    running.notes.lines(),
                    running.notes.tallies,
                    running.statistics,
                    encoder,
                )
            )
            places.append(np.concatenate([np.zeros(0, np.int64), *rows]))
        return EncodedWindow(self._window, prepared, places, [running.columns for running in self._running])
