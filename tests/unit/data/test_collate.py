"""Batches: padded, or flat with positions that restart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tunesmith.core.types import Encoded, Origin
from tunesmith.data.collate import FlatCollator, PaddingCollator, sequence_lengths
from tunesmith.data.dataset import CHOSEN, DISLIKED, LIKED, REJECTED, TokenDataset
from tunesmith.data.pack import PackedDataset, units


@pytest.fixture
def samples() -> TokenDataset:
    """1 2 3, 4, 5 6, 7 8: odd ids are trained."""
    return TokenDataset.from_encoded(
        Encoded(ids, [token % 2 == 1 for token in ids], Origin("x", row))
        for row, ids in enumerate([[1, 2, 3], [4], [5, 6], [7, 8]])
    )


@pytest.fixture
def packs(samples) -> PackedDataset:
    return PackedDataset(samples, np.array([0, 2, 3, 4]))


def as_lists(batch):
    return {name: list(one) if isinstance(one, tuple) else one.tolist() for name, one in batch.items()}


def test_one_row_of_packs_and_single_samples(packs, samples):
    batch = FlatCollator(pad_id=9)([packs[0], packs[1], samples[0]])
    assert as_lists(batch) == {
        "input_ids": [[1, 2, 3, 4, 5, 6, 1, 2, 3]],
        # 1 and 5 are trained, but they are the first of their sequence
        "labels": [[-100, -100, 3, -100, -100, -100, -100, -100, 3]],
        "position_ids": [[0, 1, 2, 0, 0, 1, 0, 1, 2]],
        "lengths": [3, 1, 2, 3],
        "cu_seqlens": [0, 3, 4, 6, 9],
        "bounds": [0, 3, 4, 6, 9],
    }
    assert batch["cu_seqlens"].dtype == torch.int32
    assert sequence_lengths(batch).sum() == 9


def test_a_row_for_each_pack(packs):
    batch = FlatCollator(pad_id=9, one_row=False)([packs[0], packs[1]])
    assert as_lists(batch) == {
        "input_ids": [[1, 2, 3, 4], [5, 6, 9, 9]],
        "labels": [[-100, -100, 3, -100], [-100, -100, -100, -100]],
        "position_ids": [[0, 1, 2, 0], [0, 1, 0, 1]],  # the padding is a sequence of its own
        "lengths": [3, 1, 2],
        "row_pieces": [2, 1],
    }
    assert sequence_lengths(batch).sum() == 6


def test_the_two_layouts_hold_the_same(packs):
    one, rows = (FlatCollator(pad_id=9, one_row=flag)(list(packs)) for flag in (True, False))
    sequence = (rows["position_ids"] == 0).cumsum(dim=1)
    real = torch.cat([row[: len(pack["input_ids"])] for row, pack in zip(rows["input_ids"], packs, strict=True)])
    assert one["input_ids"][0].tolist() == real.tolist()
    assert sequence.tolist() == [[1, 1, 1, 2], [1, 1, 2, 2], [1, 1, 2, 2]]
    assert sorted(one["labels"][one["labels"] >= 0].tolist()) == sorted(rows["labels"][rows["labels"] >= 0].tolist())


def weighted() -> TokenDataset:
    return TokenDataset.from_encoded(
        [
            Encoded([1, 2, 3], [False, True, True], weights=[1, 0, 2]),
            Encoded([4, 5], [False, True]),
        ]
    )


def test_a_token_of_weight_zero_is_not_trained():
    samples = list(weighted())
    padded = PaddingCollator(pad_id=9)(samples)
    assert padded["labels"].tolist() == [[-100, -100, 3], [-100, 5, -100]]
    assert padded["weights"].tolist() == [[1, 0, 2], [1, 1, 0]]
    flat = FlatCollator(pad_id=9)(samples)
    assert flat["labels"].tolist() == [[-100, -100, 3, -100, 5]]
    assert flat["weights"].tolist() == [[1, 0, 2, 1, 1]]
    assert flat["weights"].dtype == torch.float32


def test_without_weights_there_are_none(samples):
    assert "weights" not in PaddingCollator(pad_id=9)(list(samples))
    assert "weights" not in FlatCollator(pad_id=9)(list(samples))


def test_packs_are_never_padded_into_one_sequence(packs):
    with pytest.raises(AssertionError):
        PaddingCollator(pad_id=9)([packs[0]])


def test_tokens_are_counted_without_padding(samples):
    assert sequence_lengths(PaddingCollator(pad_id=9)(list(samples))).sum() == 8


# --- pairs and feedback ---


@pytest.fixture
def pairs() -> TokenDataset:
    """(1 2 3, 1 2 4 5) and (6 7, 6 8): the first token is the prompt."""
    sequences = [Encoded(ids, [False] + [True] * (len(ids) - 1)) for ids in ([1, 2, 3], [1, 2, 4, 5], [6, 7], [6, 8])]
    return TokenDataset.from_encoded(sequences, [CHOSEN, REJECTED] * 2)


def test_pairs_in_one_row(pairs):
    batch = FlatCollator(pad_id=9)(list(units(pairs)))
    assert as_lists(batch) == {
        "input_ids": [[1, 2, 3, 1, 2, 4, 5, 6, 7, 6, 8]],
        "labels": [[-100, 2, 3, -100, 2, 4, 5, -100, 7, -100, 8]],
        "position_ids": [[0, 1, 2, 0, 1, 2, 3, 0, 1, 0, 1]],
        "lengths": [3, 4, 2, 2],
        "cu_seqlens": [0, 3, 7, 9, 11],
        "bounds": [0, 3, 7, 9, 11],
        "kinds": [CHOSEN, REJECTED] * 2,
        "shared": [1, 1],
    }
    assert batch["kinds"].dtype == batch["shared"].dtype == torch.int64
    packed = FlatCollator(pad_id=9)([PackedDataset(pairs, np.array([0, 4]))[0]])
    assert as_lists(packed) == as_lists(batch)
    rows = FlatCollator(pad_id=9, one_row=False)(list(units(pairs)))
    assert rows["kinds"].tolist() == [CHOSEN, REJECTED] * 2
    assert rows["shared"].tolist() == [1, 1]
    assert rows["input_ids"].shape == (2, 7)


def test_a_pair_gives_two_padded_rows(pairs):
    batch = PaddingCollator(pad_id=9)(list(units(pairs)))
    assert as_lists(batch) == {
        "input_ids": [[1, 2, 3, 9], [1, 2, 4, 5], [6, 7, 9, 9], [6, 8, 9, 9]],
        "labels": [[-100, 2, 3, -100], [-100, 2, 4, 5], [-100, 7, -100, -100], [-100, 8, -100, -100]],
        "attention_mask": [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]],
        "kinds": [CHOSEN, REJECTED] * 2,
    }
    assert batch["kinds"].dtype == torch.int64
    assert sequence_lengths(batch).sum() == 11


def test_weights_of_a_pair_go_along():
    sequences = [Encoded([1, 2], [False, True], weights=[1, 0.5]), Encoded([1, 3], [False, True], weights=[1, 2])]
    batch = PaddingCollator(pad_id=9)(list(units(TokenDataset.from_encoded(sequences, [CHOSEN, REJECTED]))))
    assert batch["weights"].tolist() == [[1, 0.5], [1, 2]]


def test_feedback_keeps_its_labels(samples):
    found = TokenDataset.from_encoded([Encoded([1, 2], [False, True]), Encoded([3], [True])], [LIKED, DISLIKED])
    assert PaddingCollator(pad_id=9)(list(found))["kinds"].tolist() == [LIKED, DISLIKED]
    flat = FlatCollator(pad_id=9)([found[0], PackedDataset(found, np.array([0, 2]))[0]])
    assert flat["kinds"].tolist() == [LIKED, LIKED, DISLIKED]
    assert "shared" not in flat
    assert "kinds" not in FlatCollator(pad_id=9)(list(samples))


def test_unrelated_sequences_are_never_padded_into_one(pairs):
    with pytest.raises(AssertionError):
        PaddingCollator(pad_id=9)([PackedDataset(pairs, np.array([0, 4]))[0]])
    liked = TokenDataset.from_encoded([Encoded([1], [True])] * 2, [LIKED, LIKED])
    with pytest.raises(AssertionError):
        PaddingCollator(pad_id=9)([PackedDataset(liked, np.array([0, 2]))[0]])
