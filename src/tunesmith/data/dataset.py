"""Token sequences as views of flat arrays: nothing per sample but a few numbers.

The arrays may be mapped from files, so that a dataset may be larger than memory; choosing, ordering, cutting and
joining datasets moves numbers, never tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.core.types import Encoded, Origin
from tunesmith.data.media_table import MediaTable

__all__ = [
    "CHOSEN",
    "DISLIKED",
    "KIND_NAMES",
    "LIKED",
    "NO_LINE",
    "PLAIN",
    "PROMPT",
    "REJECTED",
    "Origins",
    "TokenDataset",
    "Tokens",
    "is_range",
]

Ints = npt.NDArray[np.int64]
NO_LINE = -1

PLAIN, CHOSEN, REJECTED, LIKED, DISLIKED, PROMPT = range(6)
"""Kinds of sequences: a text or a chat; the two of a pair; an answer that was liked, or not; a chat without answer."""
KIND_NAMES = ("", "chosen", "rejected", "liked", "disliked", "prompt")
"""What people read of a kind."""


class Tokens:
    """T tokens: ids [T] int32, trained [T] bool (is the model trained to write this token?), and weights [T] float32
    of the loss where they are not all 1; `media`: what some of them stand for.

    `folder`: where the arrays are mapped from; such tokens are sent to other processes by name, not by content.
    """

    def __init__(
        self,
        ids: npt.NDArray[np.int32],
        trained: npt.NDArray[np.bool_],
        weights: npt.NDArray[np.float32] | None = None,
        folder: Path | None = None,
        media: MediaTable | None = None,
    ) -> None:
        assert len(ids) == len(trained), f"{len(ids)} ids, {len(trained)} mask entries"
        assert weights is None or len(weights) == len(ids), "one weight per token"
        self.ids, self.trained, self.weights, self.folder = ids, trained, weights, folder
        self.media = media

    @classmethod
    def open(cls, folder: Path) -> Tokens:
        """Map the arrays that `save` wrote."""
        weights = folder / "weights.f32"
        return cls(
            _map(folder / "ids.i32", np.int32),
            _map(folder / "trained.b1", np.bool_),
            _map(weights, np.float32) if weights.exists() else None,
            folder,
            MediaTable.open(folder),
        )

    def __reduce__(self) -> object:
        if self.folder is not None:
            return Tokens.open, (self.folder,)
        return Tokens, (self.ids, self.trained, self.weights, None, self.media)


def _map(path: Path, dtype: type[np.generic]) -> npt.NDArray[np.generic]:
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return np.zeros(0, dtype)
    return np.memmap(path, dtype=dtype, mode="r")


@dataclass(frozen=True, slots=True)
class Origins:
    """Places of N samples: which of `files`, which row, which line (NO_LINE: the format has none); all [N] int64."""

    files: tuple[str, ...]
    file: Ints
    row: Ints
    line: Ints

    @classmethod
    def of(cls, origins: Iterable[Origin]) -> Origins:
        files: dict[str, int] = {}
        places = [
            (files.setdefault(origin.file, len(files)), origin.row, NO_LINE if origin.line is None else origin.line)
            for origin in origins
        ]
        table = np.array(places, dtype=np.int64).reshape(-1, 3)
        return cls(tuple(files), table[:, 0], table[:, 1], table[:, 2])

    @classmethod
    def concatenate(cls, parts: Sequence[Origins]) -> Origins:
        files = tuple(dict.fromkeys(name for part in parts for name in part.files))
        number = {name: index for index, name in enumerate(files)}
        own = [np.array([number[name] for name in part.files], dtype=np.int64)[part.file] for part in parts]
        empty = [np.zeros(0, np.int64)]
        return cls(
            files,
            np.concatenate(empty + own),
            np.concatenate(empty + [part.row for part in parts]),
            np.concatenate(empty + [part.line for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, index: int) -> Origin:
        line = int(self.line[index])
        return Origin(self.files[self.file[index]], int(self.row[index]), None if line == NO_LINE else line)

    def __iter__(self) -> Iterator[Origin]:
        return (self[index] for index in range(len(self)))

    def take(self, indices: Ints) -> Origins:
        return Origins(self.files, self.file[indices], self.row[indices], self.line[indices])


class TokenDataset:
    """N sequences, each a stretch of one of the `stores`.

    store, starts, lengths, trained_counts and kinds are [N] whole numbers: which store, where in it, how many tokens,
    how many of them are trained, and what kind of sequence (None: all PLAIN). margins [N] float32: of both of a pair by
    how much the reward of the CHOSEN one is to be higher (NaN: nobody asks). A CHOSEN one stands right before its
    REJECTED one. A map-style dataset: what the Trainer's sampler needs is `__len__`, `__getitem__`, `lengths`.
    """

    def __init__(
        self,
        stores: Sequence[Tokens],
        store: Ints,
        starts: Ints,
        lengths: Ints,
        origins: Origins,
        trained_counts: Ints | None = None,
        kinds: npt.NDArray[np.int8] | None = None,
        margins: npt.NDArray[np.float32] | None = None,
    ) -> None:
        assert len(store) == len(starts) == len(lengths) == len(origins), "one number per sequence"
        self.stores, self.store, self.starts, self.lengths = tuple(stores), store, starts, lengths
        self.origins = origins
        self.trained_counts = self._count() if trained_counts is None else trained_counts
        self.kinds = np.zeros(len(starts), np.int8) if kinds is None else kinds
        self.has_kinds = kinds is not None and bool(kinds.any())
        """Some are not PLAIN."""
        self.margins = np.full(len(starts), np.nan, np.float32) if margins is None else margins
        self.has_margins = margins is not None and not bool(np.isnan(margins).all())
        self.columns: Mapping[str, npt.NDArray[Any]] = {}
        """More numbers [N], one of each sequence: [1] in its sample, by their names."""

    @classmethod
    def from_encoded(cls, sequences: Iterable[Encoded], kinds: Sequence[int] | None = None) -> TokenDataset:
        sequences = list(sequences)
        ids = [np.asarray(sequence.ids, dtype=np.int32) for sequence in sequences]
        masks = [np.asarray(sequence.trained, dtype=np.bool_) for sequence in sequences]
        weights = None
        if any(sequence.weights is not None for sequence in sequences):
            weights = np.concatenate(
                [
                    np.ones(len(sequence.ids), np.float32)
                    if sequence.weights is None
                    else np.asarray(sequence.weights, np.float32)
                    for sequence in sequences
                ]
            )
        tokens = Tokens(
            np.concatenate([np.zeros(0, np.int32), *ids]), np.concatenate([np.zeros(0, np.bool_), *masks]), weights
        )
        lengths = np.array([len(piece) for piece in ids], dtype=np.int64)
        origins = Origins.of(sequence.origin for sequence in sequences)
        starts = np.cumsum(lengths) - lengths
        tokens.media = MediaTable.of(
            [
                replace(one, start=start + one.start, end=start + one.end)
                for start, sequence in zip(starts.tolist(), sequences, strict=True)
                for one in sequence.media
            ]
        )
        of_kind = None if kinds is None else np.array(kinds, dtype=np.int8)
        return cls([tokens], np.zeros(len(ids), np.int64), starts, lengths, origins, kinds=of_kind)

    @classmethod
    def concatenate(cls, parts: Sequence[TokenDataset]) -> TokenDataset:
        if len(parts) == 1:
            return parts[0]
        assert not any(part.columns for part in parts), "columns come last"
        stores: dict[int, Tokens] = {id(store): store for part in parts for store in part.stores}
        number = {key: index for index, key in enumerate(stores)}
        own = [np.array([number[id(store)] for store in part.stores], dtype=np.int64)[part.store] for part in parts]
        empty = [np.zeros(0, np.int64)]
        return cls(
            list(stores.values()),
            np.concatenate(empty + own),
            np.concatenate(empty + [part.starts for part in parts]),
            np.concatenate(empty + [part.lengths for part in parts]),
            Origins.concatenate([part.origins for part in parts]),
            np.concatenate(empty + [part.trained_counts for part in parts]),
            np.concatenate([np.zeros(0, np.int8), *(part.kinds for part in parts)]),
            np.concatenate([np.zeros(0, np.float32), *(part.margins for part in parts)]),
        )

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`input_ids` [T] int32, `trained` [T] bool; where the loss is weighted, `weights` [T] float32; where not all
        sequences are PLAIN, `kinds` [1] int8; of pairs for a reward model
        `margins` [1] float32; and where there are media, `media`: a list of one tuple of Placed."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        tokens = self.stores[self.store[index]]
        part = slice(self.starts[index], self.starts[index] + self.lengths[index])
        sample: dict[str, Any] = {"input_ids": tokens.ids[part], "trained": tokens.trained[part]}
        if self.weighted:
            length = int(self.lengths[index])
            sample["weights"] = np.ones(length, np.float32) if tokens.weights is None else tokens.weights[part]
        if self.has_kinds:
            sample["kinds"] = self.kinds[index : index + 1] if index >= 0 else self.kinds[[index]]
        if self.has_margins:
            sample["margins"] = self.margins[[index]]
        for name, values in self.columns.items():
            sample[name] = values[[index]]
        if self.has_media:
            media = tokens.media
            sample["media"] = [() if media is None else media.within(part.start, part.stop - part.start)]
        return sample

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    @property
    def weighted(self) -> bool:
        return any(tokens.weights is not None for tokens in self.stores)

    @property
    def has_media(self) -> bool:
        return any(tokens.media is not None for tokens in self.stores)

    @property
    def num_tokens(self) -> int:
        return int(self.lengths.sum())

    @property
    def num_trained(self) -> int:
        return int(self.trained_counts.sum())

    def origin(self, index: int) -> Origin:
        return self.origins[index]

    def take(self, indices: Ints) -> TokenDataset:
        """The sequences at `indices`, in that order, repeats included."""
        if len(indices) == len(self) and is_range(indices):
            return self
        found = TokenDataset(
            self.stores,
            self.store[indices],
            self.starts[indices],
            self.lengths[indices],
            self.origins.take(indices),
            self.trained_counts[indices],
            self.kinds[indices],
            self.margins[indices],
        )
        return found.with_columns({name: values[indices] for name, values in self.columns.items()})

    def with_columns(self, columns: Mapping[str, npt.NDArray[Any]]) -> TokenDataset:
        """The same sequences with these numbers beside them; see `columns`."""
        assert all(len(values) == len(self) for values in columns.values()), "one number for each sequence"
        found = copy(self)
        found.columns = columns
        return found

    def _count(self) -> Ints:
        """Trained tokens of each sequence."""
        counts = np.zeros(len(self.starts), dtype=np.int64)
        for number, tokens in enumerate(self.stores):
            mine = np.flatnonzero((self.store == number) & (self.lengths > 0))
            order = mine[np.argsort(self.starts[mine], kind="stable")]
            for begin in range(0, len(order), _COUNT_AT_ONCE):
                chunk = order[begin : begin + _COUNT_AT_ONCE]
                first, last = int(self.starts[chunk[0]]), int((self.starts[chunk] + self.lengths[chunk]).max())
                before = np.concatenate([[0], np.cumsum(tokens.trained[first:last], dtype=np.int64)])
                starts = self.starts[chunk] - first
                counts[chunk] = before[starts + self.lengths[chunk]] - before[starts]
        return counts


def is_range(numbers: Ints) -> bool:
    """Whether they are 0, 1, 2 ... in order."""
    return not len(numbers) or (int(numbers[0]) == 0 and bool((np.diff(numbers) == 1).all()))


_COUNT_AT_ONCE = 4096  # sequences
