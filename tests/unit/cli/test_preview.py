"""Token rows as text with marks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tunesmith.cli.preview import Part, Row, coloured, marked, parts_of, rows_of
from tunesmith.core.types import Encoded, Origin
from tunesmith.data import TokenDataset

WORDS = ["<s>", " Hi", " you", " Hello", "</s>"]


def decode(ids: Sequence[int]) -> str:
    """Like a SentencePiece decoder: the first blank of the whole is dropped."""
    return "".join(WORDS[index] for index in ids).removeprefix(" ")


def test_parts_join_to_the_decoded_whole() -> None:
    parts = list(parts_of([1, 2, 3, 4, 1], [False, False, True, True, False], decode))
    assert parts == [Part("Hi you", False), Part(" Hello</s>", True), Part(" Hi", False)]


def test_rows_carry_their_place_and_counts() -> None:
    rows = [Encoded([1, 3, 4], [False, True, True], Origin("x.jsonl", 0, 1)), Encoded([3], [True], Origin("y.csv", 5))]
    dataset = TokenDataset.from_encoded(rows)
    first, second = rows_of(dataset, decode, start=0, count=10)
    assert first.head == "row 0: x.jsonl:1, 3 tokens, 2 trained"
    assert marked(first) == "Hi⟦ Hello</s>⟧"
    assert second.number == 1
    assert list(rows_of(dataset, decode, start=1, count=1)) == [second]
    assert first.to_dict()["parts"] == [{"text": "Hi", "trained": False}, {"text": " Hello</s>", "trained": True}]


def test_colour_marks_the_same_characters() -> None:
    row = Row(0, "x", 2, 1, (Part("[bold]Hi", False), Part(" Hello", True)))
    text = coloured(row)
    assert text.plain == "[bold]Hi Hello"
    (trained,) = [span for span in text.spans if "green" in str(span.style)]
    assert text.plain[trained.start : trained.end] == " Hello"


def test_numpy_rows_become_plain_numbers() -> None:
    dataset = TokenDataset.from_encoded([Encoded(np.array([1, 3]), np.array([False, True]))])
    (row,) = rows_of(dataset, decode, 0, 1)
    assert (type(row.tokens), type(row.trained)) == (int, int)


@pytest.mark.parametrize("mask", [[True, True], [False, False]])
def test_a_row_of_one_kind_is_one_part(mask: list[bool]) -> None:
    assert list(parts_of([1, 2], mask, decode)) == [Part("Hi you", mask[0])]
