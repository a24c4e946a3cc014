"""Token arrays, cutting them, and batches of them."""

from __future__ import annotations

import numpy as np
import pytest

from tunesmith.core.types import Encoded, Origin
from tunesmith.data import PaddingCollator, TokenDataset
from tunesmith.data.truncate import Cut, cut_point


@pytest.fixture
def tokens() -> TokenDataset:
    return TokenDataset.from_encoded(
        Encoded(ids, [token % 2 == 1 for token in ids], Origin("x", row))
        for row, ids in enumerate([[1, 2, 3], [4], [5, 6]])
    )


def test_arrays_are_flat(tokens):
    (store,) = tokens.stores
    assert store.ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert (store.ids.dtype, store.trained.dtype, store.weights) == (np.int32, np.bool_, None)
    assert tokens.lengths.tolist() == [3, 1, 2]
    assert tokens.trained_counts.tolist() == [2, 0, 1]
    assert (tokens.num_tokens, tokens.num_trained, len(tokens)) == (6, 3, 3)


def test_samples_by_number(tokens):
    assert tokens[1]["input_ids"].tolist() == [4]
    assert tokens[-1]["input_ids"].tolist() == [5, 6]
    assert tokens[-1]["trained"].tolist() == [True, False]
    assert len(list(tokens)) == 3
    for index in (3, -4):
        with pytest.raises(IndexError):
            tokens[index]


def test_take_repeats_and_reorders(tokens):
    taken = tokens.take(np.array([2, 0, 2]))
    assert [sample["input_ids"].tolist() for sample in taken] == [[5, 6], [1, 2, 3], [5, 6]]
    assert [origin.row for origin in taken.origins] == [2, 0, 2]
    assert taken.trained_counts.tolist() == [1, 2, 1]
    assert len(tokens.take(np.zeros(0, np.int64))) == 0


def test_concatenate(tokens):
    both = TokenDataset.concatenate([tokens, tokens.take(np.array([1]))])
    assert [sample["input_ids"].tolist() for sample in both] == [[1, 2, 3], [4], [5, 6], [4]]
    assert len(both.stores) == 1
    others = TokenDataset.from_encoded([Encoded([7], [True], Origin("y", 0, 5), weights=[0.5])])
    weighted = TokenDataset.concatenate([both, others])
    assert (len(weighted.stores), str(weighted.origins[4]), str(weighted.origins[0])) == (2, "y:5", "x, row 0")
    assert [sample["weights"].tolist() for sample in weighted] == [[1, 1, 1], [1], [1, 1], [1], [0.5]]
    assert len(TokenDataset.concatenate([])) == 0


def test_padding(tokens):
    batch = PaddingCollator(pad_id=9)([tokens[0], tokens[1]])
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[1, -100, 3], [-100, -100, -100]]


def test_equal_lengths_are_not_padded_and_a_multiple_is_kept(tokens):
    assert PaddingCollator(pad_id=9)([tokens[0], tokens[0]])["attention_mask"].tolist() == [[1, 1, 1]] * 2
    assert PaddingCollator(pad_id=9, multiple_of=4)([tokens[0]])["input_ids"].tolist() == [[1, 2, 3, 9]]


def test_a_trained_pad_id_stays_a_label():
    """Where the padding token is the stop token too, the stop is still learnt."""
    batch = PaddingCollator(pad_id=0)([{"input_ids": np.array([5, 0]), "trained": np.array([True, True])}])
    assert batch["labels"].tolist() == [[5, 0]]


def mask(text: str) -> np.ndarray:
    return np.array([letter == "T" for letter in text])


@pytest.mark.parametrize(
    ("text", "cutoff_len", "cut"),
    [
        ("..TT.TT", 7, Cut(7)),  # fits
        ("..TT.TT", 6, Cut(4, turns_dropped=1)),  # the second answer does not: cut behind the first
        ("..TT.TT.", 7, Cut(7)),  # only a tail that is not trained is lost
        ("..TT.TT.TT", 4, Cut(4, turns_dropped=2)),
        ("..TTTT", 5, Cut(5, answer_cut=True)),
        ("..TTTT.T", 3, Cut(3, turns_dropped=1, answer_cut=True)),
        ("..TTTT", 2, Cut(0)),  # the prompt alone fills it
        ("TTTTT", 3, Cut(3, answer_cut=True)),  # trained throughout
        (".....", 3, Cut(0)),
    ],
)
def test_where_a_sequence_is_cut(text, cutoff_len, cut):
    assert cut_point(mask(text), cutoff_len) == cut
