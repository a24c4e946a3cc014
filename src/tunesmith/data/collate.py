"""Samples to one batch of tensors: padded rows with a mask, or sequences that are told apart by their positions.

Both give `input_ids` [B, T] int64, `labels` [B, T] int64 (the id where the model is trained to write it, else
`label_pad`) and, where the loss is weighted, `weights` [B, T] float32. A token of weight 0 is not trained. Labels are
not shifted: the logit at t is for the label at t + 1. Where sequences are not PLAIN (`dataset`), `kinds` int64 tells of
each what it is. Where samples tell what the reference says of their sequences, so does `reference`, in its own type;
pairs for a reward model have `margins` float32, one for each sequence. With media,
`media` is a list with the inputs of each sequence, `bad_media` [K] says where one could not be read, and what the model
is told of each token beside its id is [B, T, ...] by its name (`seen`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tunesmith.data.dataset import CHOSEN, REJECTED
from tunesmith.data.mismatch import MISMATCHED
from tunesmith.data.seen import laid_out

if TYPE_CHECKING:
    import torch

    from tunesmith.core.types import Placed
    from tunesmith.data.seen import Seen

__all__ = ["FlatCollator", "PaddingCollator", "ReadMedia", "sequence_lengths", "tokens_before"]

LABEL_PAD = -100  # the field's convention
PER_SEQUENCE = ("kinds", "margins", "reference")
ReadMedia: TypeAlias = "Callable[[Sequence[int], Sequence[bool], Sequence[Placed]], Seen]"
"""ids, trained and media of one sequence: what the model takes for the media."""


class PaddingCollator:
    """Pads B sequences on the right to the longest one, T tokens. Samples are single sequences, or pairs, which give
    two rows each: chosen, rejected, chosen, rejected ...

    Adds attention_mask [B, T] int64 (0 on padding), and `kinds` [B]. `multiple_of` rounds T up: some devices like
    multiples of 8 or 64. `mismatched`: what comes with feedback, as a batch of its own.
    """

    def __init__(
        self, pad_id: int, label_pad: int = LABEL_PAD, multiple_of: int = 1, read_media: ReadMedia | None = None
    ) -> None:
        self.pad_id, self.label_pad, self.multiple_of, self.read_media = pad_id, label_pad, multiple_of, read_media

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        samples, told = _read([row for sample in samples for row in _rows_of(sample)], self.read_media)
        lengths = [len(sample["input_ids"]) for sample in samples]
        width = -(-max(lengths) // self.multiple_of) * self.multiple_of
        mask = np.arange(width) < np.asarray(lengths)[:, None]
        batch = _rows(samples, width, self.pad_id, self.label_pad)
        batch |= {"attention_mask": mask.astype(np.int64), **_beside(samples, *PER_SEQUENCE)}
        return _tensors(batch) | _shown(told, [1] * len(samples), width) | _mismatched(samples, self)


class FlatCollator:
    """Sequences one behind the other, told apart by `position_ids` [B, T] int64, which begin at 0 in each; no mask.

    Samples may be packs (with `lengths`) or single sequences. `lengths` [K] int64 tells all sequences of the batch in
    their order, `kinds` [K] what they are, and `shared` [P] int64 how many tokens each pair begins with in common. The
    first token of a sequence has no label: nothing precedes it.

    one_row      the whole batch is one row [1, T] without padding; `cu_seqlens` [K + 1] int32 are its borders, and
                 `bounds` the same as a tuple of numbers: for attention that reads the borders
    shares       in one row, what both of a pair begin with stands there once: the rejected one goes on behind it, as
                 `segments` tells: (start, end, first, last) of each sequence, whose tokens from `start` to `end` have
                 those from `first` to `last` before them (none where these are equal). `lengths` and `bounds` are of
                 what stands in the row
    otherwise    each sample is a row, `row_pieces` [B] int64 its sequences; what pads the shorter ones is a sequence
                 of its own, without labels: for attention with a mask of T x T, whose cost is the square of a row

    `mismatched`: what comes with feedback (`data/mismatch.py`), as a batch of its own, with as many sequences.
    """

    def __init__(
        self,
        pad_id: int,
        label_pad: int = LABEL_PAD,
        *,
        one_row: bool = True,
        shares: bool = False,
        read_media: ReadMedia | None = None,
    ) -> None:
        assert one_row or not shares, "rows with a mask have all of each sequence"
        self.pad_id, self.label_pad, self.one_row, self.shares = pad_id, label_pad, one_row, shares
        self.read_media = read_media

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        before, others = [0], _mismatched(samples, self)
        if self.shares:
            samples, before = _shared_once(samples)
        samples, told = _read(samples, self.read_media)
        pieces = [sample.get("lengths", [len(sample["input_ids"])]) for sample in samples]
        lengths = np.concatenate(pieces).astype(np.int64)
        held = [lengths] if self.one_row else pieces
        more = {"lengths": lengths, **_beside(samples, *PER_SEQUENCE, "shared")}
        bounds: dict[str, Any] = {}
        if self.one_row:
            samples, pieces = [_joined(samples)], held
            borders = np.concatenate([[0], np.cumsum(lengths)])
            more["cu_seqlens"], bounds["bounds"] = borders.astype(np.int32), tuple(borders.tolist())
            if any(before):
                bounds["segments"] = _segments(bounds["bounds"], before)
        else:
            more["row_pieces"] = np.array([len(row) for row in pieces], dtype=np.int64)
        width = max(len(sample["input_ids"]) for sample in samples)
        batch = _rows(samples, width, self.pad_id, self.label_pad)
        positions = np.stack([_positions(row, width) for row in pieces])
        if any(before):
            positions += np.repeat(before, lengths)
        batch["labels"][positions == 0] = self.label_pad
        shown = _shown(told, [len(row) for row in held], width)
        return _tensors({**batch, "position_ids": positions, **more}) | shown | bounds | others


def _read(
    samples: Sequence[Mapping[str, Any]], read: ReadMedia | None
) -> tuple[Sequence[Mapping[str, Any]], list[Seen]]:
    """The samples, with nothing trained of sequences whose media could not be read, and what is seen in each."""
    if not any("media" in sample for sample in samples):
        return samples, []
    assert read is not None, "whoever has media in its data says how they are read"
    told: list[Seen] = []
    found: list[Mapping[str, Any]] = []
    for sample in samples:
        ends = np.cumsum(sample.get("lengths", [len(sample["input_ids"])]))
        trained = sample["trained"].copy()
        media = sample.get("media", [()] * len(ends))
        for start, end, own in zip([0, *ends[:-1]], ends, media, strict=True):
            told.append(read(sample["input_ids"][start:end], trained[start:end], own))
            trained[start:end] &= not told[-1].bad
        found.append({**sample, "trained": trained})
    return found, told


def _shown(told: Sequence[Seen], rows: Sequence[int], width: int) -> dict[str, Any]:
    """What is seen, as parts of a batch whose rows hold so many sequences each."""
    if not told:
        return {}
    tokens = {name: laid_out([one.tokens[name] for one in told], rows, width) for name in told[0].tokens}
    bad = _tensors({"bad_media": np.array([one.bad for one in told], dtype=np.int64)})
    return {"media": [one.inputs for one in told], **bad, **tokens}


def _mismatched(
    samples: Sequence[Mapping[str, Any]], collate: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]
) -> dict[str, Any]:
    """The sequences that stand beside those of the samples, if there are any, as a batch of their own."""
    names = [name for name in samples[0] if name.startswith(MISMATCHED)]
    rows = [{name.removeprefix(MISMATCHED): sample[name] for name in names} for sample in samples]
    return {"mismatched": collate(rows)} if names else {}


def _shared_once(samples: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[int]]:
    """The samples without what a rejected sequence has in common with the chosen one before it, and of each sequence
    how many tokens it goes on behind."""
    found, before = [], []
    for sample in samples:
        lengths = np.asarray(sample.get("lengths", [len(sample["input_ids"])])).copy()
        own = np.zeros(len(lengths), dtype=np.int64)
        if "shared" in sample:
            own[sample["kinds"] == REJECTED] = np.minimum(sample["shared"], lengths[sample["kinds"] == REJECTED] - 1)
        place = _positions(lengths, int(lengths.sum()))
        kept = place >= np.repeat(own, lengths)
        tokens = {key: sample[key][kept] for key in ("input_ids", "trained", "weights") if key in sample}
        found.append({**sample, **tokens, "lengths": lengths - own})
        before += own.tolist()
    return found, before


def _segments(bounds: Sequence[int], before: Sequence[int]) -> tuple[tuple[int, int, int, int], ...]:
    """`before`: how many tokens of the sequence in front of it each one goes on behind."""
    found = []
    for number, (start, end) in enumerate(pairwise(bounds)):
        first = bounds[number - 1] if before[number] else start
        found.append((start, end, first, first + before[number]))
    return tuple(found)


def sequence_lengths(batch: Mapping[str, torch.Tensor]) -> np.ndarray:
    """Tokens of each sequence [K] of a batch in the memory of the processor, padding left out."""
    found = batch["lengths"].numpy() if "lengths" in batch else batch["attention_mask"].numpy().sum(1)
    return np.asarray(found)


def tokens_before(batch: Mapping[str, Any]) -> np.ndarray:
    """How many tokens of another sequence each one [K] of a batch goes on behind."""
    if "segments" not in batch:
        return np.zeros(len(sequence_lengths(batch)), dtype=np.int64)
    return np.array([last - first for _, _, first, last in batch["segments"]], dtype=np.int64)


def _rows_of(sample: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The two sequences of a pair, or the one of a sample."""
    if len(sample.get("lengths", ())) < 2:
        yield {name: value for name, value in sample.items() if name != "lengths"}
        return
    kinds = sample["kinds"].tolist() if "kinds" in sample else []
    assert kinds == [CHOSEN, REJECTED], "the sequences of a pack would see each other"
    first = int(sample["lengths"][0])
    for number, part in enumerate((slice(first), slice(first, None))):
        row = {key: sample[key][part] for key in ("input_ids", "trained", "weights") if key in sample}
        yield row | {key: sample[key][number : number + 1] for key in (*PER_SEQUENCE, "media") if key in sample}


def _beside(samples: Sequence[Mapping[str, Any]], *names: str) -> dict[str, np.ndarray]:
    """What the samples tell of their sequences, joined."""
    found = {name: np.concatenate([sample[name] for sample in samples]) for name in names if name in samples[0]}
    return {name: one if one.dtype.kind == "f" else one.astype(np.int64) for name, one in found.items()}


def _joined(samples: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    keys = {"input_ids", "trained", "weights"} & samples[0].keys()
    return {key: np.concatenate([sample[key] for sample in samples]) for key in keys}


def _rows(samples: Sequence[Mapping[str, Any]], width: int, pad_id: int, label_pad: int) -> dict[str, np.ndarray]:
    """input_ids, labels and weights of samples that are padded to `width`."""
    ids = np.full((len(samples), width), pad_id, dtype=np.int64)
    labels = np.full((len(samples), width), label_pad, dtype=np.int64)
    weighted = "weights" in samples[0]
    weights = np.zeros((len(samples), width if weighted else 0), dtype=np.float32)
    for row, sample in enumerate(samples):
        length, trained = len(sample["input_ids"]), sample["trained"]
        ids[row, :length] = sample["input_ids"]
        if weighted:
            weights[row, :length] = sample["weights"]
            trained = trained & (sample["weights"] != 0)
        labels[row, :length][trained] = sample["input_ids"][trained]
    return {"input_ids": ids, "labels": labels} | ({"weights": weights} if weighted else {})


def _positions(lengths: Sequence[int], width: int) -> np.ndarray:
    """0, 1, 2, ... in each sequence, and in what is left of the row."""
    sizes = np.append(lengths, width - np.sum(lengths)).astype(np.int64)
    starts: np.ndarray = np.cumsum(sizes) - sizes
    return np.arange(width) - np.repeat(starts, sizes)


def _tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    import torch

    return {name: torch.from_numpy(array) for name, array in arrays.items()}
