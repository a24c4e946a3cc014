"""A batch in parts: each is what the collator makes of its samples alone, and together they are the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.core.types import Encoded, MediaFacts, Medium, Placed
from tunesmith.data.collate import FlatCollator, PaddingCollator
from tunesmith.data.dataset import CHOSEN, REJECTED, TokenDataset
from tunesmith.data.pack import pack, units
from tunesmith.data.seen import Seen
from tunesmith.train.micro import cost, is_whole, size_of, split

COLLATORS = {
    "padded": PaddingCollator(0),
    "flat": FlatCollator(0),
    "shared": FlatCollator(0, shares=True),
    "rows of packs": FlatCollator(0, one_row=False),
}


def read_media(ids: Any, _trained: Any, placed: Sequence[Placed]) -> Seen:
    """What a model might take: a number for each medium, and a type of each token."""
    inputs = {"pixels": torch.tensor([float(one.medium.source) for one in placed])} if placed else {}
    return Seen(inputs, {"mm_token_type_ids": torch.tensor([int(one) % 2 for one in ids])})


SEEING = {
    "padded": PaddingCollator(0, read_media=read_media),
    "flat": FlatCollator(0, read_media=read_media),
}


def rows(lengths: Sequence[int], *, weighted: bool = False, pairs: bool = False) -> TokenDataset:
    generator = np.random.default_rng(len(lengths))
    sequences = [
        Encoded(
            generator.integers(3, 100, length).tolist(),
            [place > 0 for place in range(length)],
            weights=[0.5] * length if weighted else None,
        )
        for length in lengths
    ]
    if not pairs:
        return TokenDataset.from_encoded(sequences)
    for chosen, rejected in zip(sequences[::2], sequences[1::2], strict=True):  # a prompt of up to four tokens
        size = min(len(chosen.ids), len(rejected.ids), 4)
        rejected.ids[:size] = chosen.ids[:size]
        for one in (chosen, rejected):
            one.trained[:size] = [False] * size
    found = TokenDataset.from_encoded(sequences, [CHOSEN, REJECTED] * (len(lengths) // 2))
    return found.with_columns({"reference": generator.normal(size=len(lengths))})


def seeing(lengths: Sequence[int]) -> TokenDataset:
    """Every other sequence of more than three tokens has media at its beginning."""
    numbers = iter(range(100))
    sequences = []
    for at, length in enumerate(lengths):
        count = 1 + at % 3 if at % 2 and length > 3 else 0
        media = tuple(
            Placed(Medium("image", str(next(numbers)), MediaFacts()), place, place + 1) for place in range(count)
        )
        sequences.append(Encoded([3 + at] * length, [place > 2 for place in range(length)], media=media))
    return TokenDataset.from_encoded(sequences)


def assert_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        if name == "media":
            assert [{key: tensor.tolist() for key, tensor in own.items()} for own in value] == [
                {key: tensor.tolist() for key, tensor in own.items()} for own in other[name]
            ]
        elif isinstance(value, torch.Tensor):
            assert value.dtype == other[name].dtype
            assert value.tolist() == other[name].tolist(), name
        else:
            assert value == other[name]


def assert_parts_are_batches(samples: Any, collate: Any, most: int) -> list[Any]:
    """Go through the samples with the parts; each part takes as many as it has."""
    parts, begin = split(collate(samples), most), 0
    for part in parts:
        end = next(end for end in range(begin + 1, len(samples) + 1) if same(collate(samples[begin:end]), part))
        assert cost(part) <= most or end == begin + 1
        if end < len(samples):
            assert cost(collate(samples[begin : end + 1])) > most, "one more would have fitted"
        begin = end
    assert begin == len(samples)
    return parts


def same(one: Any, other: Any) -> bool:
    if one["input_ids"].shape != other["input_ids"].shape or not torch.equal(one["input_ids"], other["input_ids"]):
        return False
    assert_equal(one, other)
    return True


@given(lengths=st.lists(st.integers(2, 12), min_size=1, max_size=9), most=st.integers(0, 60), weighted=st.booleans())
@pytest.mark.parametrize("form", COLLATORS)
def test_parts_are_what_the_collator_makes_of_their_samples(
    form: str, lengths: list[int], most: int, weighted: bool
) -> None:
    assert_parts_are_batches(list(rows(lengths, weighted=weighted)), COLLATORS[form], most)


@given(lengths=st.lists(st.integers(2, 12), min_size=1, max_size=9), most=st.integers(0, 60))
@pytest.mark.parametrize("form", ["padded", "flat"])
def test_media_go_with_their_sequences(form: str, lengths: list[int], most: int) -> None:
    dataset = seeing(lengths)
    samples = [{**dataset[number], "media": dataset[number].get("media", [()])} for number in range(len(dataset))]
    parts = assert_parts_are_batches(samples, SEEING[form], most)
    held = [one for part in parts for own in part["media"] for one in own.get("pixels", torch.zeros(0)).tolist()]
    assert held == list(range(len(held)))
    assert len(held) == sum(len(own) for sample in samples for own in sample["media"])


@given(lengths=st.lists(st.integers(2, 12), min_size=2, max_size=10), most=st.integers(0, 60))
@pytest.mark.parametrize("form", ["padded", "flat", "shared"])
def test_pairs_stay_together(form: str, lengths: list[int], most: int) -> None:
    pairs = units(rows(lengths[: len(lengths) // 2 * 2], pairs=True))
    for part in assert_parts_are_batches(list(pairs), COLLATORS[form], most):
        kinds = part["kinds"].tolist()
        assert kinds == [CHOSEN, REJECTED] * (len(kinds) // 2)


@given(lengths=st.lists(st.integers(2, 12), min_size=1, max_size=12), most=st.integers(0, 60))
def test_packs_in_rows_of_their_own_stay_whole(lengths: list[int], most: int) -> None:
    assert_parts_are_batches(list(pack(rows(lengths), 24, seed=0)), COLLATORS["rows of packs"], most)


def test_a_flat_pack_is_split_at_its_sequences() -> None:
    packs = pack(rows([5, 6, 7, 8]), 26, seed=0)
    assert len(packs) == 1
    batch = COLLATORS["flat"](list(packs))
    parts = split(batch, 13)
    assert sorted(length for part in parts for length in part["lengths"].tolist()) == [5, 6, 7, 8]
    assert all(cost(part) <= 13 for part in parts)
    assert all(is_whole(part) == (len(part["lengths"]) == 1) for part in parts)
    assert torch.cat([part["labels"] for part in parts], 1).tolist() == batch["labels"].tolist()


def test_what_fits_is_given_back_as_it_is() -> None:
    batch = COLLATORS["padded"](list(rows([3, 9])))
    assert split(batch, None)[0] is batch
    assert split(batch, 18)[0] is batch
    assert len(split(batch, 17)) == 2


def test_size() -> None:
    """Two rows of 3 and 9 tokens: padded 2 x 9 positions, flat 3 + 9."""
    samples = list(rows([3, 9]))
    assert size_of(COLLATORS["padded"](samples)) == (18, 9)
    assert size_of(COLLATORS["flat"](samples)) == (12, 9)


def test_what_nobody_knows_to_split_is_an_error_of_ours() -> None:
    batch = {**COLLATORS["padded"](list(rows([3, 9]))), "unheard_of": torch.zeros(2)}
    with pytest.raises(AssertionError, match="unheard_of"):
        split(batch, 1)
