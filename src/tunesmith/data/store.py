"""Encoded samples in a folder: written batch by batch, opened as arrays that are mapped, not read.

ids.i32  trained.b1  [weights.f32]   the tokens of all samples, one sample behind the other
samples.i32                          [N, 8]: length, trained tokens, example, file, row, line, kind, and
                                     the bits of a float32, the margin of a pair (NaN: none)
[media.i64  media.jsonl]             what some of the tokens stand for (`media_table`)
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from tunesmith.core.types import Placed
from tunesmith.data.dataset import Origins, TokenDataset, Tokens
from tunesmith.data.media_table import LINES, NUMBERS, MediaTable

__all__ = ["GrowingFiles", "HeldSamples", "SampleSink", "SampleWriter", "open_samples"]

Ints = npt.NDArray[np.signedinteger]
_COLUMNS = ("length", "trained", "example", "file", "row", "line", "kind", "margin")


class SampleSink(Protocol):
    """What takes encoded samples, batch by batch."""

    def add(
        self,
        ids: npt.NDArray[np.int32],
        trained: npt.NDArray[np.bool_],
        weights: npt.NDArray[np.float32] | None,
        table: Ints,
        media: Sequence[Placed] = (),
    ) -> None:
        """`table`: the eight numbers of each sample, as in `samples.i32`; `media`: their places among `ids`."""


class GrowingFiles:
    """Files of a folder that are appended to. `sizes`: how many bytes of each are kept from before; what is behind
    them, and every file that is not named and is no JSON, is removed."""

    def __init__(self, folder: Path, sizes: Mapping[str, int] | None = None) -> None:
        self._folder = folder
        self._files: dict[str, BinaryIO] = {}
        for file in folder.iterdir():
            if file.suffix != ".json" and file.name not in (sizes or ()):
                file.unlink()
        for name, size in (sizes or {}).items():
            os.truncate(folder / name, size)
            self._open(name)

    def _open(self, name: str) -> BinaryIO:
        return self._files.setdefault(name, (self._folder / name).open("ab"))

    def append(self, name: str, array: npt.NDArray[Any]) -> None:
        """Write the numbers behind what the file holds; the first call makes the file."""
        file = self._files.get(name) or self._open(name)
        file.write(np.ascontiguousarray(array).data)

    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {name: file.tell() for name, file in self._files.items()}

    def sync(self) -> dict[str, int]:
        """Wait until everything is on the disk; the bytes of each file."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        return self.sizes()

    def __enter__(self) -> GrowingFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            if kind is None:
                file.close()
            else:
                with suppress(OSError):  # a full disk was told when it was met
                    file.close()


class SampleWriter:
    """Appends samples to the files of a folder; nothing of them stays in memory."""

    def __init__(self, files: GrowingFiles) -> None:
        self._files = files
        for name in ("ids.i32", "trained.b1", "samples.i32"):
            files.append(name, np.zeros(0, np.int8))

    def add(
        self,
        ids: npt.NDArray[np.int32],
        trained: npt.NDArray[np.bool_],
        weights: npt.NDArray[np.float32] | None,
        table: Ints,
        media: Sequence[Placed] = (),
    ) -> None:
        assert table.shape[1] == len(_COLUMNS), "eight numbers for a sample"
        assert len(ids) == len(trained) == table[:, 0].sum(), "the lengths do not cover the tokens"
        assert not len(table) or table.max() < 2**31, "samples, rows and lines are counted in 31 bits"
        sizes = self._files.sizes()
        if weights is not None and "weights.f32" not in sizes:
            self._files.append("weights.f32", np.ones(sizes["trained.b1"], np.float32))
        if media:
            self._add_media(media, sizes)
        if weights is not None or "weights.f32" in sizes:
            self._files.append("weights.f32", np.ones(len(ids), np.float32) if weights is None else weights)
        self._files.append("ids.i32", ids)
        self._files.append("trained.b1", trained)
        self._files.append("samples.i32", table.astype(np.int32))

    def _add_media(self, media: Sequence[Placed], sizes: Mapping[str, int]) -> None:
        found = MediaTable.of(media)
        assert found is not None, "there are media"
        first, line = sizes["ids.i32"] // 4, sizes.get(LINES, 0)
        self._files.append(NUMBERS, found.numbers + np.array([first, first, line]))
        self._files.append(LINES, found.lines)


class HeldSamples:
    """Keeps samples in memory: for a few of them at a time."""

    def __init__(self) -> None:
        self._ids: list[npt.NDArray[np.int32]] = [np.zeros(0, np.int32)]
        self._trained: list[npt.NDArray[np.bool_]] = [np.zeros(0, np.bool_)]
        self._weights: list[npt.NDArray[np.float32] | None] = [None]
        self._table: list[Ints] = [np.zeros((0, len(_COLUMNS)), np.int32)]
        self._media: list[Placed] = []

    def add(
        self,
        ids: npt.NDArray[np.int32],
        trained: npt.NDArray[np.bool_],
        weights: npt.NDArray[np.float32] | None,
        table: Ints,
        media: Sequence[Placed] = (),
    ) -> None:
        first = sum(map(len, self._ids))
        self._media += [replace(one, start=first + one.start, end=first + one.end) for one in media]
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
        media = MediaTable.of(self._media)
        tokens = Tokens(np.concatenate(self._ids), np.concatenate(self._trained), weights, media=media)
        return _as_samples(tokens, np.concatenate(self._table), files)


def open_samples(folder: Path, files: Sequence[str]) -> tuple[TokenDataset, Ints]:
    """The samples, and [N] which example each is of. `files`: the names that the numbers of files stand for."""
    table = np.fromfile(folder / "samples.i32", np.int32).reshape(-1, len(_COLUMNS))
    return _as_samples(Tokens.open(folder), table, files)


def _as_samples(tokens: Tokens, table: Ints, files: Sequence[str]) -> tuple[TokenDataset, Ints]:
    length, trained, example, file, row, line, kind, margin = (np.ascontiguousarray(column) for column in table.T)
    origins = Origins(tuple(files), file.astype(np.int16), row, line)
    starts = np.cumsum(length, dtype=np.int64) - length
    store = np.zeros(len(length), np.int16)
    made = TokenDataset(
        [tokens], store, starts, length, origins, trained, kind.astype(np.int8), margin.view(np.float32)
    )
    return made, example
