"""A stream of samples: each window of rows becomes a small dataset, by the same steps as a whole dataset does.

It is encoded, cut and packed by itself; its packs follow from the seed, the epoch and the number of the window. So a
stream can go on at any window, with what a stream that never stopped would have had.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tunesmith.data.dataset import TokenDataset
from tunesmith.data.length import LengthOutcome
from tunesmith.data.opened import OpenDataset
from tunesmith.data.pack import PackedDataset, arrange
from tunesmith.data.prepared import Pool
from tunesmith.data.streaming.encode import EncodedWindow, WindowEncoder
from tunesmith.data.streaming.rows import RowStream
from tunesmith.data.streaming.tally import StreamTally

if TYPE_CHECKING:
    from tunesmith.config.data import DataConfig

__all__ = ["SampleStream", "Window", "fitted", "in_order"]

Samples: TypeAlias = TokenDataset | PackedDataset


@dataclass(frozen=True, slots=True)
class Window:
    """Samples in the order of their rows; packs in a drawn order. `number` counts windows over all epochs. A stream
    that is given `state` begins with this window."""

    epoch: int
    number: int
    state: Mapping[str, Any]
    samples: Samples


class SampleStream:
    """Windows without end. `key`: what a place in the stream depends on, as plain values; `files`: names of files and
    what marks their contents; `tally`: what was read so far."""

    def __init__(
        self,
        datasets: Sequence[OpenDataset],
        rows: RowStream,
        encoder: WindowEncoder,
        data: DataConfig,
        *,
        stage: str,
        seed: int,
        key: Mapping[str, Any],
        files: Sequence[Sequence[str]],
        start: Mapping[str, Any] | None = None,
    ) -> None:
        self._rows, self._encoder, self._data = rows, encoder, data
        self._stage, self._seed, self._start = stage, seed, start
        self.key, self.files = key, files
        self.tally = StreamTally(datasets, data)
        self._made: Generator[Window, None, None] | None = None
        self._first: Window | None = None

    def first(self) -> Window:
        """The window that `windows` will begin with."""
        if self._first is None:
            self._made = self._make()
            self._first = next(self._made)
        return self._first

    def windows(self) -> Iterator[Window]:
        """All windows from the start on, anew whenever it is called. Raises DataError once rows come that stop a run;
        what was read before them is given first."""
        window, made = self.first(), self._made
        self._first = self._made = None
        assert made is not None, "made with the first window"
        try:
            yield window
            yield from made
        finally:
            made.close()  # its processes end with it

    def close(self) -> None:
        """End the processes of a stream that was looked at and not read."""
        if self._made is not None:
            self._made.close()
        self._first = self._made = None

    def _make(self) -> Generator[Window, None, None]:
        start = self._start or {"rows": self._rows.beginning(), "tally": self.tally.state()}
        self.tally.load(start["tally"])
        for encoded in self._encoder.encoded(self._rows.windows, start["rows"]):
            window = encoded.window
            state = {"rows": window.state, "tally": self.tally.state()}
            samples = self._samples(encoded)
            if len(samples):
                yield Window(window.epoch, window.number, state, samples)

    def _samples(self, encoded: EncodedWindow) -> Samples:
        """Cut and packed."""
        data, stage, packs = self._data, self._stage, self._data.packs(self._stage)
        self.tally.add(encoded, fitted(encoded, data, stage))
        samples = in_order(encoded)
        seed = (self._seed, encoded.window.epoch, encoded.window.number)
        return arrange(samples, stage, data.cutoff_len, seed, packs=packs) if len(samples) else samples


def fitted(encoded: EncodedWindow, data: DataConfig, stage: str) -> list[LengthOutcome]:
    """Cut what is longer than cutoff_len; documents that are cut into blocks stay whole."""
    if stage == "pt" and data.packs(stage):
        return []
    return [one.fit(data.cutoff_len, data.on_too_long) for one in encoded.prepared]


def in_order(encoded: EncodedWindow) -> TokenDataset:
    """The samples of all datasets in the order of the window's rows."""
    return Pool.of(encoded.prepared).take(np.argsort(np.concatenate(encoded.places)))
