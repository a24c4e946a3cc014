"""Token sequences as three flat arrays: nothing per sample but two offsets and a place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tunesmith.core.types import Encoded, Origin

__all__ = ["TokenDataset"]


class TokenDataset:
    """N sequences with T tokens in all.

    ids [T] int32, trained [T] bool (is the model trained to write this token?), offsets [N + 1] int64,
    origins N places. A map-style dataset: what the Trainer's sampler needs is `__len__`, `__getitem__` and `lengths`.
    """

    def __init__(
        self,
        ids: npt.NDArray[np.int32],
        trained: npt.NDArray[np.bool_],
        offsets: npt.NDArray[np.int64],
        origins: Sequence[Origin],
    ) -> None:
        assert len(ids) == len(trained) == offsets[-1], "the offsets do not cover the tokens"
        assert len(offsets) == len(origins) + 1, "one place per sequence"
        self.ids, self.trained, self.offsets, self.origins = ids, trained, offsets, origins

    @classmethod
    def from_encoded(cls, sequences: Iterable[Encoded]) -> TokenDataset:
        pieces, masks, origins = [], [], []
        for sequence in sequences:
            pieces.append(np.asarray(sequence.ids, dtype=np.int32))
            masks.append(np.asarray(sequence.trained, dtype=np.bool_))
            origins.append(sequence.origin)
        offsets = np.zeros(len(pieces) + 1, dtype=np.int64)
        np.cumsum([len(piece) for piece in pieces], out=offsets[1:])
        ids = np.concatenate(pieces) if pieces else np.zeros(0, np.int32)
        trained = np.concatenate(masks) if masks else np.zeros(0, np.bool_)
        return cls(ids, trained, offsets, origins)

    @classmethod
    def concatenate(cls, parts: Sequence[TokenDataset]) -> TokenDataset:
        if len(parts) == 1:
            return parts[0]
        lengths = np.concatenate([np.zeros(0, np.int64), *(part.lengths for part in parts)])
        ids = np.concatenate([np.zeros(0, np.int32), *(part.ids for part in parts)])
        trained = np.concatenate([np.zeros(0, np.bool_), *(part.trained for part in parts)])
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        return cls(ids, trained, offsets, [origin for part in parts for origin in part.origins])

    def __len__(self) -> int:
        return len(self.origins)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        part = slice(self.offsets[index], self.offsets[index + 1])
        return {"input_ids": self.ids[part], "trained": self.trained[part]}

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return (self[index] for index in range(len(self)))

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """[N] tokens of each sequence."""
        return np.diff(self.offsets)

    @property
    def num_tokens(self) -> int:
        return int(self.offsets[-1])

    @property
    def num_trained(self) -> int:
        return int(np.count_nonzero(self.trained))

    def origin(self, index: int) -> Origin:
        """Where the sequence came from; of a block of several documents, where its first one did."""
        return self.origins[index]

    def take(self, indices: npt.NDArray[np.int64]) -> TokenDataset:
        """The sequences at `indices`, in that order, repeats included. Copies, unless all are taken in their order."""
        if len(indices) == len(self) and np.array_equal(indices, np.arange(len(self))):
            return self
        lengths = self.lengths[indices]
        offsets = np.zeros(len(indices) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        # token i of the result is token (start of its sequence here) + (its place in the sequence)
        source = np.arange(offsets[-1]) + np.repeat(self.offsets[indices] - offsets[:-1], lengths)
        return TokenDataset(self.ids[source], self.trained[source], offsets, [self.origins[index] for index in indices])
