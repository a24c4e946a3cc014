"""Packing: several sequences, or parts of documents, in one row of at most `cutoff_len` tokens."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tunesmith.core.types import Origin
from tunesmith.data.dataset import TokenDataset

__all__ = ["PackedDataset", "cut_into_blocks"]

Ints = npt.NDArray[np.int64]


class PackedDataset:
    """N packs: pack i holds the sequences bounds[i] to bounds[i + 1] of `pieces`, one behind the other.

    A sample has, beside `input_ids` and `trained` [T], `lengths` [K]: the K pieces that it is made of, of which none
    may see another.
    """

    def __init__(self, pieces: TokenDataset, bounds: Ints) -> None:
        assert bounds[0] == 0, "the first pack begins with the first piece"
        assert bounds[-1] == len(pieces), "the packs hold all pieces"
        self.pieces, self.bounds = pieces, bounds

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        numbers = range(self.bounds[index], self.bounds[index + 1])
        samples = [self.pieces[number] for number in numbers]
        joined = {key: np.concatenate([sample[key] for sample in samples]) for key in samples[0]}
        return {**joined, "lengths": self.pieces.lengths[numbers.start : numbers.stop]}

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return (self[index] for index in range(len(self)))

    @property
    def lengths(self) -> Ints:
        """[N] tokens of each pack."""
        total = np.concatenate([[0], np.cumsum(self.pieces.lengths)])
        found: Ints = np.diff(total[self.bounds])
        return found

    @property
    def num_tokens(self) -> int:
        return self.pieces.num_tokens

    @property
    def num_trained(self) -> int:
        return self.pieces.num_trained

    def origin(self, index: int) -> Origin:
        """Where the first piece of a pack came from."""
        return self.pieces.origin(int(self.bounds[index]))


def cut_into_blocks(documents: TokenDataset, block: int) -> PackedDataset:
    """Blocks of `block` tokens over the documents in their order; the last block is shorter unless it comes out even.

    Nothing is dropped: a document that meets the end of a block goes on in the next one. Each ends with the EOS that
    the renderer gave it.
    """
    ends = np.cumsum(documents.lengths)
    starts = ends - documents.lengths
    total = int(ends[-1]) if len(ends) else 0
    edges = np.union1d(np.arange(0, total, block, dtype=np.int64), starts[documents.lengths > 0])
    lengths = np.diff(np.append(edges, total))
    document = np.searchsorted(ends, edges, side="right")
    pieces = documents.take(document)
    pieces = TokenDataset(
        pieces.stores, pieces.store, pieces.starts + (edges - starts[document]), lengths, pieces.origins
    )
    bounds = np.searchsorted(edges, np.arange(0, total, block, dtype=np.int64))
    return PackedDataset(pieces, np.append(bounds, len(edges)))
