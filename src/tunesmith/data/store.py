"""Encoded samples in a folder: written batch by batch, opened as arrays that are mapped, not read.

ids.i32  trained.b1  [weights.f32]   the tokens of all samples, one sample behind the other
samples.npy                          [N, 7] int32: length, trained tokens, example, file, row, line, kind
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from tunesmith.data.dataset import Origins, TokenDataset, Tokens

__all__ = ["HeldSamples", "SampleSink", "SampleWriter", "open_samples"]

Ints = npt.NDArray[np.signedinteger]
_COLUMNS = ("length", "trained", "example", "file", "row", "line", "kind")


class SampleSink(Protocol):
    """What takes encoded samples, batch by batch."""

    def add(
        self,
        ids: npt.NDArray[np.int32],
        trained: npt.NDArray[np.bool_],
        weights: npt.NDArray[np.float32] | None,
        table: Ints,
    ) -> None:
        """`table`: the seven numbers of each sample, as in `samples.npy`."""


class SampleWriter:
    """Appends samples to the files of a folder; nothing of them stays in memory but seven numbers each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ids: BinaryIO = (folder / "ids.i32").open("wb")
        self._trained: BinaryIO = (folder / "trained.b1").open("wb")
        self._weights: BinaryIO | None = None
        self._tokens = 0
        self._table: list[npt.NDArray[np.int32]] = []

    def add(
        self,
        ids: npt.NDArray[np.int32],
        trained: npt.NDArray[np.bool_],
        weights: npt.NDArray[np.float32] | None,
        table: Ints,
    ) -> None:
        assert table.shape[1] == len(_COLUMNS), "seven numbers for a sample"
        assert len(ids) == len(trained) == table[:, 0].sum(), "the lengths do not cover the tokens"
        if weights is not None and self._weights is None:
            self._weights = (self._folder / "weights.f32").open("wb")
            np.ones(self._tokens, np.float32).tofile(self._weights)
        if self._weights is not None:
            (np.ones(len(ids), np.float32) if weights is None else weights).tofile(self._weights)
        ids.tofile(self._ids)
        trained.tofile(self._trained)
        self._tokens += len(ids)
        assert not len(table) or table.max() < 2**31, "samples, rows and lines are counted in 31 bits"
        self._table.append(table.astype(np.int32))

    def __enter__(self) -> SampleWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in (self._ids, self._trained, self._weights):
            if handle is not None:
                handle.close()
        if kind is None:
            np.save(
                self._folder / "samples.npy", np.concatenate([np.zeros((0, len(_COLUMNS)), np.int32), *self._table])
            )


class HeldSamples:
    """Keeps samples in memory: for a few of them at a time."""

    def __init__(self) -> None:
        self._ids: list[npt.NDArray[np.int32]] = [np.zeros(0, np.int32)]
        self._trained: list[npt.NDArray[np.bool_]] = [np.zeros(0, np.bool_)]
        self._weights: list[npt.NDArray[np.float32] | None] = [None]
        self._table: list[Ints] = [np.zeros((0, len(_COLUMNS)), np.int32)]

    def add(
        self,
        ids: npt.NDArray[np.int32],
        trained: npt.NDArray[np.bool_],
        weights: npt.NDArray[np.float32] | None,
        table: Ints,
    ) -> None:
        self._ids.append(ids)
        self._trained.append(trained)
        self._weights.append(weights)
        self._table.append(table.astype(np.int32))

    def samples(self, files: Sequence[str]) -> tuple[TokenDataset, Ints]:
        """What `open_samples` gives."""
        weights = None
        if any(one is not None for one in self._weights):
            parts = zip(self._ids, self._weights, strict=True)
            weights = np.concatenate([np.ones(len(ids), np.float32) if one is None else one for ids, one in parts])
        tokens = Tokens(np.concatenate(self._ids), np.concatenate(self._trained), weights)
        return _as_samples(tokens, np.concatenate(self._table), files)


def open_samples(folder: Path, files: Sequence[str]) -> tuple[TokenDataset, Ints]:
    """The samples, and [N] which example each is of. `files`: the names that the numbers of files stand for."""
    return _as_samples(Tokens.open(folder), np.load(folder / "samples.npy", allow_pickle=False), files)


def _as_samples(tokens: Tokens, table: Ints, files: Sequence[str]) -> tuple[TokenDataset, Ints]:
    length, trained, example, file, row, line, kind = (np.ascontiguousarray(column) for column in table.T)
    origins = Origins(tuple(files), file.astype(np.int16), row, line)
    starts = np.cumsum(length, dtype=np.int64) - length
    store = np.zeros(len(length), np.int16)
    return TokenDataset([tokens], store, starts, length, origins, trained, kind.astype(np.int8)), example
