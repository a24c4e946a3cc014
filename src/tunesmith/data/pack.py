"""Packing: several sequences, or parts of documents, in one row of at most `capacity` tokens.

`pack` is for samples: each stays whole, so that an answer never loses its question, and both of a pair stay together.
`cut_into_blocks` is for the documents of pre-training. Either way no sequence ever sees another: a pack tells the
lengths of its pieces.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.core.types import Origin
from tunesmith.data.dataset import CHOSEN, REJECTED, TokenDataset
from tunesmith.data.formats.base import KINDS
from tunesmith.data.mismatch import mismatched

__all__ = ["PackedDataset", "arrange", "cut_into_blocks", "fit", "pack", "units"]

Ints = npt.NDArray[np.int64]


class PackedDataset:
    """N packs: pack i holds the sequences bounds[i] to bounds[i + 1] of `pieces`, one behind the other.

    A sample has, beside `input_ids` and `trained` [T], `lengths` [K]: the K pieces that it is made of, of which none
    may see another. Where these are not PLAIN, `kinds` [K] int8; and with P pairs among them, `shared` [P]: how many
    tokens at the beginning of both are the same, of those before anything is trained and before the first medium. With
    media, `media`: a list of K tuples.
    """

    def __init__(self, pieces: TokenDataset, bounds: Ints) -> None:
        assert bounds[0] == 0, "the first pack begins with the first piece"
        assert bounds[-1] == len(pieces), "the packs hold all pieces"
        self.pieces, self.bounds = pieces, bounds

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        numbers = range(self.bounds[index], self.bounds[index + 1])
        samples = [self.pieces[number] for number in numbers]
        arrays = samples[0].keys() - {"media"}
        joined: dict[str, Any] = {key: np.concatenate([sample[key] for sample in samples]) for key in arrays}
        if "media" in samples[0]:
            joined["media"] = [media for sample in samples for media in sample["media"]]
        joined["lengths"] = self.pieces.lengths[numbers.start : numbers.stop]
        if self.pieces.has_kinds and len(chosen := np.flatnonzero(joined["kinds"] == CHOSEN)):
            shared = [_shared(samples[number], samples[number + 1]) for number in chosen]
            joined["shared"] = np.array(shared, dtype=np.int64)
        return joined

    def __iter__(self) -> Iterator[dict[str, Any]]:
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

    def with_columns(self, columns: Mapping[str, npt.NDArray[Any]]) -> PackedDataset:
        """The same packs; of each piece there are these numbers too."""
        return PackedDataset(self.pieces.with_columns(columns), self.bounds)

    def origin(self, index: int) -> Origin:
        """Where the first piece of a pack came from."""
        return self.pieces.origin(int(self.bounds[index]))


def _shared(chosen: Mapping[str, Any], rejected: Mapping[str, Any]) -> int:
    """How many tokens both begin with, of those before anything is trained and before the first medium."""
    size = min(len(chosen["input_ids"]), len(rejected["input_ids"]))
    differs = chosen["input_ids"][:size] != rejected["input_ids"][:size]
    ends = differs | chosen["trained"][:size] | rejected["trained"][:size]
    media = [one.start for sample in (chosen, rejected) for own in sample.get("media", ()) for one in own]
    return min([int(ends.argmax()) if ends.any() else size, *media])


def arrange(
    samples: TokenDataset, stage: str, cutoff_len: int, seed: int | Sequence[int], *, packs: bool
) -> TokenDataset | PackedDataset:
    """What one index gives in training: a sequence, a pair, a block of documents, or a pack of as many as fit. With
    feedback come answers to other prompts."""
    pairs = KINDS[stage] == "preference"
    if KINDS[stage] == "feedback":
        samples = mismatched(samples, cutoff_len)
    if not packs:
        return units(samples) if pairs else samples
    if KINDS[stage] == "document":
        return cut_into_blocks(samples, cutoff_len)
    return pack(samples, cutoff_len * (2 if pairs else 1), seed)  # each of a pair may have cutoff_len


def units(samples: TokenDataset) -> PackedDataset:
    """Each pair as one item, and so each sequence that is none of a pair."""
    firsts = np.flatnonzero(samples.kinds != REJECTED)
    return PackedDataset(samples, np.append(firsts, len(samples)))


def pack(samples: TokenDataset, capacity: int, seed: int | Sequence[int]) -> PackedDataset:
    """Whole samples and whole pairs in as few rows of at most `capacity` tokens as best-fit-decreasing finds, over all.

    Which of equally long ones meet, their places in a pack and the order of the packs are drawn from `seed`:
    otherwise neighbours of the file would stay together, and the packs would come sorted by length.
    """
    whole = units(samples)
    generator = np.random.default_rng(seed)
    drawn = generator.permutation(len(whole))
    order, bounds = fit(whole.lengths[drawn], capacity)
    packs = generator.permutation(len(bounds) - 1)
    sizes = np.diff(bounds)[packs]
    chosen = drawn[order[_stretches(bounds[packs], sizes)]]
    pieces = np.diff(whole.bounds)[chosen]
    ends = np.concatenate([[0], np.cumsum(pieces)])[np.cumsum(sizes)]
    return PackedDataset(samples.take(_stretches(whole.bounds[chosen], pieces)), np.concatenate([[0], ends]))


def _stretches(starts: Ints, sizes: Ints) -> Ints:
    """The numbers from each start on, so many, one stretch behind the other."""
    ends = np.cumsum(sizes)
    found: Ints = np.arange(sizes.sum()) + np.repeat(starts - (ends - sizes), sizes)
    return found


def fit(lengths: Ints, capacity: int) -> tuple[Ints, Ints]:
    """Best-fit-decreasing: (order, bounds); pack i holds the items order[bounds[i]:bounds[i + 1]], by their numbers.

    The longest item first, each goes into the pack with the least space that is enough, or opens one. All items of a
    length and all packs of a space are handled at once: a pack of space r is the best fit for r // length such items
    in a row, because what is left of it is less than r. So this is exact, with ties in any order, and takes about as
    many steps as there are different pairs of a length and a space, not as there are items.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    assert not len(lengths) or lengths.min() > 0, "an empty sequence has no place"
    assert not len(lengths) or lengths.max() <= capacity, "what is too long is cut before it is packed"
    spaces = _Spaces()
    pack_of = np.zeros(len(lengths), dtype=np.int64)
    packs = 0
    by_length = np.argsort(-lengths, kind="stable")
    edges = np.flatnonzero(np.diff(lengths[by_length], prepend=0, append=0))
    for begin, end in pairwise(edges):
        items, length = by_length[begin:end], int(lengths[by_length[begin]])
        while len(items):
            space = spaces.least(length)
            each = (space or capacity) // length  # items that one pack takes
            wanted = -(-len(items) // each)
            if space is None:
                chosen = np.arange(packs, packs + wanted)
                packs += wanted
                space = capacity
            else:
                chosen = spaces.take(space, wanted)
            taken = min(len(items), each * len(chosen))
            pack_of[items[:taken]] = np.repeat(chosen, each)[:taken]
            full = taken // each
            spaces.put(space - each * length, chosen[:full])
            spaces.put(space - (taken - each * full) * length, chosen[full:])  # the last one, if it got fewer
            items = items[taken:]
    order = np.argsort(pack_of, kind="stable")
    return order, np.concatenate([[0], np.cumsum(np.bincount(pack_of, minlength=packs))])


class _Spaces:
    """Packs by the space that is left in them."""

    def __init__(self) -> None:
        self._packs: dict[int, list[Ints]] = {}
        self._sorted: list[int] = []

    def least(self, length: int) -> int | None:
        """The least space that holds an item of this length."""
        place = bisect_left(self._sorted, length)
        return self._sorted[place] if place < len(self._sorted) else None

    def put(self, space: int, packs: Ints) -> None:
        if not len(packs) or not space:
            return
        if space not in self._packs:
            self._packs[space] = []
            insort(self._sorted, space)
        self._packs[space].append(packs)

    def take(self, space: int, wanted: int) -> Ints:
        """At most `wanted` packs of this space."""
        held, found, count = self._packs[space], [], 0
        while held and count < wanted:
            found.append(held.pop())
            count += len(found[-1])
        if count > wanted:
            held.append(found[-1][len(found[-1]) - (count - wanted) :])
            found[-1] = found[-1][: len(found[-1]) - (count - wanted)]
        if not held:
            del self._packs[space]
            del self._sorted[bisect_left(self._sorted, space)]
        return np.concatenate(found)


def cut_into_blocks(documents: TokenDataset, block: int) -> PackedDataset:
    """Blocks of `block` tokens over the documents in their order; the last block is shorter unless it comes out even.

    Nothing is dropped: a document that meets the end of a block goes on in the next one, without what came before.
    Each ends with the EOS that the renderer gave it. For documents this is better than `pack`: they are often longer
    than a block, any stretch of them is worth learning, and every block but the last is full.
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
