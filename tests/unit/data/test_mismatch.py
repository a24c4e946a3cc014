"""Answers to other prompts beside feedback: which one goes with which prompt, and in every kind of batch."""

from __future__ import annotations

import numpy as np

from tunesmith.core.types import Encoded
from tunesmith.data.collate import FlatCollator, PaddingCollator
from tunesmith.data.dataset import DISLIKED, LIKED, TokenDataset
from tunesmith.data.mismatch import mismatched
from tunesmith.data.pack import arrange
from tunesmith.train.micro import split

# (prompt, answer): the first two are answers to one prompt
ROWS = (([1, 2], [11, 12]), ([1, 2], [13]), ([3], [14, 15, 16]), ([4, 5, 6], [17]))
WITH_OTHERS = [[1, 2, 14, 15, 16], [1, 2, 14, 15, 16], [3, 17], [4, 5, 6, 11, 12]]


def feedback(weighted: bool = False) -> TokenDataset:
    rows = [
        Encoded(
            prompt + answer,
            [False] * len(prompt) + [True] * len(answer),
            weights=[2.0] * (len(prompt) + len(answer)) if weighted else None,
        )
        for prompt, answer in ROWS
    ]
    return TokenDataset.from_encoded(rows, [LIKED, DISLIKED, LIKED, DISLIKED])


def test_each_prompt_gets_the_next_answer_to_another_prompt() -> None:
    found = list(mismatched(feedback(), 99))
    assert [row["mismatched_input_ids"].tolist() for row in found] == WITH_OTHERS
    assert [int(row["mismatched_trained"].sum()) for row in found] == [3, 3, 1, 2]
    assert [row["input_ids"].tolist() for row in found] == [prompt + answer for prompt, answer in ROWS]
    assert [row["mismatched_lengths"].tolist() for row in found] == [[5], [5], [2], [5]]
    assert "mismatched_weights" in mismatched(feedback(weighted=True), 99)[0]


def test_they_are_cut_and_go_along_with_their_rows() -> None:
    found = mismatched(feedback(), 4)
    assert [len(row["mismatched_input_ids"]) for row in found] == [4, 4, 2, 4]
    taken = found.take(np.array([3, 0]))
    assert [row["mismatched_input_ids"].tolist() for row in taken] == [[4, 5, 6, 11], [1, 2, 14, 15]]


def test_one_prompt_alone_gets_the_answers_to_it() -> None:
    same = TokenDataset.from_encoded([Encoded([1, answer], [False, True]) for answer in (7, 8)], [LIKED, DISLIKED])
    assert [row["mismatched_input_ids"].tolist() for row in mismatched(same, 9)] == [[1, 8], [1, 7]]


def test_batches_hold_them_as_a_batch_of_their_own() -> None:
    rows = [arrange(feedback(), "kto", 99, 0, packs=False)[number] for number in range(4)]
    flat = FlatCollator(0)(rows)["mismatched"]
    assert flat["input_ids"].tolist() == [[one for row in WITH_OTHERS for one in row]]
    assert flat["lengths"].tolist() == [5, 5, 2, 5]
    padded = PaddingCollator(0)(rows)["mismatched"]
    assert [row[: len(one)].tolist() for row, one in zip(padded["input_ids"], WITH_OTHERS, strict=True)] == WITH_OTHERS
    for collate in (FlatCollator(0), PaddingCollator(0)):
        for part, one in zip(split(collate(rows), 0), WITH_OTHERS, strict=True):
            assert part["mismatched"]["input_ids"].tolist() == [one]


def test_packs_have_those_of_their_answers() -> None:
    packs = arrange(feedback(), "kto", 9, 0, packs=True)
    rows = [packs[number] for number in range(len(packs))]
    for batch in (FlatCollator(0)(rows), FlatCollator(0, one_row=False)(rows)):
        assert len(batch["mismatched"]["lengths"]) == len(batch["kinds"]) == 4
        parts = split(batch, 0)
        assert sum(len(part["mismatched"]["lengths"]) for part in parts) == 4
        assert all(len(part["mismatched"]["lengths"]) == len(part["kinds"]) for part in parts)
