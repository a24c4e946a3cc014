"""Near-duplicates without comparing every text with every other: MinHash sketches and banded hashing, in numpy.

    text -> 5-character shingles -> 120 minima under 120 hash functions -> 20 bands of 6
            (sets of hashes)        (equal with probability J)            (one equal band makes a candidate)

Two texts whose shingle sets have the Jaccard similarity J agree in each minimum with probability J, so the share of
equal minima estimates J (standard deviation 0.037 at J = 0.8), and they share a whole band with probability
1 - (1 - J^6)^20: 0.998 at J = 0.8, 0.27 at J = 0.5. Of every minimum only one byte is kept.
A. Broder, "On the resemblance and containment of documents" (1997); P. Indyk, R. Motwani (STOC 1998).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["SIMILAR", "Sketches", "candidates", "clusters", "shingles", "similarity", "sketch"]

SHINGLE = 5  # characters
BANDS, BAND_ROWS = 20, 6
HASHES = BANDS * BAND_ROWS
SIMILAR = 0.8
"""From this estimated similarity on two texts count as near-duplicates."""
_BLOCK = 1 << 15  # shingles hashed at a time: they and their products stay in the cache of a core
_PAIRS_AT_ONCE = 1 << 16

U8, U32, U64 = np.uint8, np.uint32, np.uint64
Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint32]

_GENERATOR = np.random.default_rng(20_240_229)
_MULTIPLY = (_GENERATOR.integers(0, 1 << 31, HASHES, dtype=U32) << U32(1)) | U32(1)  # odd: a permutation of 2^32
_ADD = _GENERATOR.integers(0, 1 << 32, HASHES, dtype=U32)


@dataclass(frozen=True, slots=True)
class Sketches:
    """Of N texts: `minima` [N, HASHES] uint8, the low bytes; `bands` [N, BANDS] uint32, a hash of each band."""

    minima: npt.NDArray[np.uint8]
    bands: Hashes

    def __len__(self) -> int:
        return len(self.minima)

    @classmethod
    def concatenate(cls, parts: Sequence[Sketches]) -> Sketches:
        empty = cls(np.zeros((0, HASHES), U8), np.zeros((0, BANDS), U32))
        every = [empty, *parts]
        return cls(np.concatenate([one.minima for one in every]), np.concatenate([one.bands for one in every]))

    def apart(self, groups: Sequence[int]) -> Sketches:
        """The same, with no band in common for texts of different groups [N] of 32 bits; group 0 stays as it is."""
        return Sketches(self.minima, self.bands ^ np.array(groups, U32)[:, None])

    def take(self, indices: Ints) -> Sketches:
        return Sketches(self.minima[indices], self.bands[indices])


def shingles(texts: Sequence[str]) -> tuple[Hashes, Ints]:
    """(hash of every 5 characters in a row, text by text; where each text's begin). A shorter text is one shingle."""
    padded = [text.ljust(SHINGLE, "\0") for text in texts]
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    lengths = np.array([len(text) for text in padded], dtype=np.int64)
    counts = lengths - (SHINGLE - 1)
    hashed = np.zeros(max(0, len(codes) - SHINGLE + 1), dtype=U32)
    for offset in range(SHINGLE):
        hashed = hashed * U32(0x01000193) + codes[offset : offset + len(hashed)].astype(U32)
    # Windows that reach into the next text are left out.
    ends = np.cumsum(lengths)
    inside = np.ones(len(hashed), dtype=np.bool_)
    for before in range(1, SHINGLE):
        inside[ends[:-1] - before] = False
    return _mix(hashed[inside]), np.cumsum(counts) - counts


def _mix(values: Hashes) -> Hashes:
    """Spread 32 bits over 32 bits (the finalizer of MurmurHash3)."""
    values = (values ^ (values >> U32(16))) * U32(0x85EBCA6B)
    values = (values ^ (values >> U32(13))) * U32(0xC2B2AE35)
    return values ^ (values >> U32(16))


def sketch(texts: Sequence[str]) -> Sketches:
    """Sketches of texts that are normalised already."""
    if not texts:
        return Sketches.concatenate([])
    hashed, starts = shingles(texts)
    minima = np.empty((len(texts), HASHES), dtype=U32)
    first = 0
    while first < len(texts):
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + _BLOCK, side="left")))
        end = int(starts[last]) if last < len(texts) else len(hashed)
        block, begins = hashed[starts[first] : end], starts[first:last] - starts[first]
        for index in range(HASHES):
            minima[first:last, index] = np.minimum.reduceat(block * _MULTIPLY[index] + _ADD[index], begins)
        first = last
    keys = np.zeros((len(texts), BANDS), dtype=U32)
    for row in range(BAND_ROWS):
        keys = _mix(keys ^ minima[:, row::BAND_ROWS])
    return Sketches(_mix(minima).astype(U8), keys)


def candidates(bands: Hashes, *, anchor: npt.NDArray[np.bool_] | None = None) -> Ints:
    """Pairs [P, 2] of texts with an equal band, each pair once: each text with the first and with the one before it of
    those that share the band. `anchor` [N]: these come first of those that share a band."""
    order = np.arange(len(bands)) if anchor is None else np.argsort(~anchor, kind="stable")
    pairs = [np.zeros((0, 2), np.int64)]
    for band in range(bands.shape[1]):
        sorted_ = order[np.argsort(bands[order, band], kind="stable")]
        keys = bands[sorted_, band]
        begins = np.flatnonzero(np.diff(keys.astype(np.int64), prepend=-1) != 0)
        first = np.repeat(begins, np.diff(begins, append=len(keys)))
        behind = np.flatnonzero(first != np.arange(len(keys)))
        for partner in (first[behind], behind - 1):
            pairs.append(np.stack([sorted_[partner], sorted_[behind]], axis=1))
    return np.unique(np.concatenate(pairs), axis=0)


def similarity(minima: npt.NDArray[np.uint8], pairs: Ints) -> npt.NDArray[np.float64]:
    """Estimated Jaccard similarity [P] of pairs [P, 2]. One byte of a minimum is equal by chance once in 256 times."""
    equal = np.zeros(len(pairs), dtype=np.int64)
    for begin in range(0, len(pairs), _PAIRS_AT_ONCE):
        part = pairs[begin : begin + _PAIRS_AT_ONCE]
        equal[begin : begin + len(part)] = (minima[part[:, 0]] == minima[part[:, 1]]).sum(axis=1)
    share = equal / minima.shape[1]
    estimate: npt.NDArray[np.float64] = np.maximum(0.0, (share - 1 / 256) / (1 - 1 / 256))
    return estimate


def clusters(count: int, pairs: Ints) -> list[Ints]:
    """The groups of two or more of `count` texts that pairs connect, the largest first, members in their order."""
    label = np.arange(count)
    while len(pairs):
        low = np.minimum(label[pairs[:, 0]], label[pairs[:, 1]])
        before = label.copy()
        np.minimum.at(label, pairs[:, 0], low)
        np.minimum.at(label, pairs[:, 1], low)
        label = label[label]  # half the way to the root
        if np.array_equal(label, before):
            break
    order = np.argsort(label, kind="stable")
    begins = np.flatnonzero(np.diff(label[order], prepend=-1) != 0)
    groups = np.split(order, begins[1:]) if count else []
    return sorted((group for group in groups if len(group) > 1), key=lambda group: (-len(group), group[0]))
