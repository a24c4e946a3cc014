"""Packing: best-fit-decreasing against the textbook's way, nothing lost, nothing seen twice."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.config.data import DataConfig
from tunesmith.core.types import Encoded, Origin
from tunesmith.data.build import build_datasets
from tunesmith.data.dataset import CHOSEN, LIKED, REJECTED, TokenDataset
from tunesmith.data.pack import PackedDataset, cut_into_blocks, fit, pack, units

lengths_and_capacity = st.integers(1, 60).flatmap(
    lambda capacity: st.tuples(st.lists(st.integers(1, capacity), max_size=80), st.just(capacity))
)


def dataset(lengths) -> TokenDataset:
    """Sequence i holds the token i, `lengths[i]` times; all but its first are trained."""
    return TokenDataset.from_encoded(
        Encoded([number] * length, [place > 0 for place in range(length)], Origin("x", number))
        for number, length in enumerate(lengths)
    )


def best_fit_decreasing(lengths, capacity):
    """The spaces that are left, by the definition: one item after the other, the longest first."""
    spaces: list[int] = []
    for length in sorted(lengths, reverse=True):
        enough = [space for space in spaces if space >= length]
        if enough:
            spaces.remove(min(enough))
            spaces.append(min(enough) - length)
        else:
            spaces.append(capacity - length)
    return sorted(spaces)


@given(lengths_and_capacity)
def test_fit_is_best_fit_decreasing(case):
    lengths, capacity = case
    order, bounds = fit(np.array(lengths, dtype=np.int64), capacity)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert (np.diff(bounds) > 0).all()
    packs = [sum(lengths[item] for item in order[begin:end]) for begin, end in pairwise(bounds)]
    # Packs of equal space are alike to the algorithm, so it is the spaces that are determined, not the contents.
    assert sorted(capacity - tokens for tokens in packs) == best_fit_decreasing(lengths, capacity)


def test_fit_by_hand():
    # 7 opens a pack and leaves 3; 6 leaves 4; the first 4 fills that one; 3 fills the first; 2 opens a third.
    order, bounds = fit(np.array([2, 3, 4, 6, 7]), 10)
    packs = [set(order[begin:end].tolist()) for begin, end in pairwise(bounds)]
    assert packs == [{4, 1}, {3, 2}, {0}]


def test_what_is_too_long_for_a_pack_is_a_mistake_of_the_caller():
    with pytest.raises(AssertionError):
        fit(np.array([11]), 10)


def test_packs_of_instructions_are_full(assets):
    """Lengths drawn from those of alpaca_en_demo under Qwen3's tokenizer; what is left is mostly the last pack."""
    from tokenizers import Tokenizer

    rows = json.loads((assets / "data" / "sft" / "alpaca_en_demo.json").read_text())
    tokenizer = Tokenizer.from_file(str(assets / "tokenizers" / "qwen3" / "tokenizer.json"))
    texts = [f"{row['instruction']}\n{row['input']}\n{row['output']}" for row in rows]
    known = [min(len(encoded.ids) + 15, 2048) for encoded in tokenizer.encode_batch(texts)]
    lengths = np.random.default_rng(0).choice(known, 50_000)
    _, bounds = fit(lengths, 2048)
    assert lengths.sum() / ((len(bounds) - 1) * 2048) >= 0.995


@given(lengths_and_capacity, st.integers(0, 3))
def test_every_sample_is_in_one_pack_and_whole(case, seed):
    lengths, capacity = case
    packed = pack(dataset(lengths), capacity, seed)
    assert (packed.lengths <= capacity).all()
    assert len(packed) == len(best_fit_decreasing(lengths, capacity))
    seen = []
    for number, sample in enumerate(packed):
        assert len(sample["input_ids"]) == sample["lengths"].sum() == packed.lengths[number]
        ends = np.cumsum(sample["lengths"])
        for begin, end in zip(ends - sample["lengths"], ends, strict=True):
            (row,) = set(sample["input_ids"][begin:end].tolist())
            assert end - begin == lengths[row]
            assert sample["trained"][begin:end].tolist() == [False] + [True] * (end - begin - 1)
            seen.append(row)
    assert sorted(seen) == list(range(len(lengths)))


def contents(packed: PackedDataset):
    return [sample["input_ids"].tolist() for sample in packed]


def test_the_packs_are_a_function_of_the_seed():
    samples = dataset(np.random.default_rng(0).integers(1, 9, 200))
    assert contents(pack(samples, 20, seed=5)) == contents(pack(samples, 20, seed=5))
    assert contents(pack(samples, 20, seed=5)) != contents(pack(samples, 20, seed=6))


def test_neighbours_of_the_file_do_not_stay_together():
    """400 samples of one length, 4 a pack: in the file's order each pack would hold four neighbours."""
    packed = pack(dataset([5] * 400), 20, seed=1)
    spreads = [np.ptp(sample["input_ids"]) for sample in packed]
    assert np.median(spreads) > 100
    firsts = np.array([sample["input_ids"][0] for sample in packed])
    assert abs(np.corrcoef(firsts, np.arange(len(firsts)))[0, 1]) < 0.4


def test_packs_do_not_come_sorted_by_length():
    packed = pack(dataset([60] * 50 + [30] * 100), 60, seed=1)
    pieces = [len(sample["lengths"]) for sample in packed]
    assert pieces != sorted(pieces)
    assert pieces != sorted(pieces, reverse=True)


def test_weights_go_along():
    samples = TokenDataset.from_encoded(
        [Encoded([1, 2], [True, True], Origin("x", 0)), Encoded([3], [True], Origin("x", 1), weights=[0.5])]
    )
    (sample,) = pack(samples, 3, seed=0)
    assert dict(zip(sample["input_ids"].tolist(), sample["weights"].tolist(), strict=True)) == {1: 1, 2: 1, 3: 0.5}


def test_nothing_gives_no_packs():
    assert len(pack(dataset([]), 10, seed=0)) == 0


def test_documents_go_on_in_the_next_block():
    blocks = cut_into_blocks(dataset([3, 6, 2]), 4)
    assert contents(blocks) == [[0, 0, 0, 1], [1, 1, 1, 1], [1, 2, 2]]
    assert [sample["lengths"].tolist() for sample in blocks] == [[3, 1], [4], [1, 2]]


# --- pairs ---

sides = st.tuples(st.lists(st.integers(0, 1), min_size=1, max_size=8), st.integers(0, 8))
"""(ids, how many of them are not trained at the beginning; all if it is more)"""


def pairs(items) -> TokenDataset:
    """Pair i is (chosen, rejected), both `sides`, and says so by its place."""
    return TokenDataset.from_encoded(
        (
            Encoded(ids, [place >= given for place in range(len(ids))], Origin("x", number))
            for number, both in enumerate(items)
            for ids, given in both
        ),
        [CHOSEN, REJECTED] * len(items),
    )


def shared(chosen, rejected) -> int:
    """By the definition, one token after the other."""
    (ours, given), (theirs, other_given) = chosen, rejected
    count = 0
    while count < min(len(ours), len(theirs), given, other_given) and ours[count] == theirs[count]:
        count += 1
    return count


@given(st.lists(st.tuples(sides, sides), max_size=40), st.integers(16, 40), st.integers(0, 3))
def test_no_pair_is_torn(items, capacity, seed):
    packed = pack(pairs(items), capacity, seed)
    assert (packed.lengths <= capacity).all()
    rows = [packed.pieces.origin(number).row for number in range(len(packed.pieces))]
    assert rows[::2] == rows[1::2]
    assert sorted(rows[::2]) == list(range(len(items))), "every pair once"
    piece = 0
    for number, sample in enumerate(packed):
        count = len(sample["lengths"])
        assert count == packed.bounds[number + 1] - packed.bounds[number]
        assert sample["kinds"].tolist() == [CHOSEN, REJECTED] * (count // 2)
        mine = [items[row] for row in rows[piece : piece + count : 2]]
        assert sample["lengths"].tolist() == [len(ids) for both in mine for ids, _ in both]
        assert sample["input_ids"].tolist() == [token for both in mine for ids, _ in both for token in ids]
        assert sample["shared"].tolist() == [shared(*both) for both in mine]
        piece += count
    sizes = [len(chosen[0]) + len(rejected[0]) for chosen, rejected in items]
    assert len(packed) == len(best_fit_decreasing(sizes, capacity))


@given(st.lists(st.tuples(sides, sides), max_size=20))
def test_unpacked_pairs_are_one_item_each(items):
    found = units(pairs(items))
    assert len(found) == len(items)
    for sample, both in zip(found, items, strict=True):
        assert sample["input_ids"].tolist() == [*both[0][0], *both[1][0]]
        assert sample["shared"].tolist() == [shared(*both)]
    assert found.lengths.tolist() == [len(chosen[0]) + len(rejected[0]) for chosen, rejected in items]


def test_what_is_no_pair_is_an_item_by_itself():
    sequences = [Encoded([number], [True]) for number in range(3)]
    assert contents(units(TokenDataset.from_encoded(sequences, [LIKED, CHOSEN, REJECTED]))) == [[0], [1, 2]]
    assert [sample.keys() for sample in units(dataset([2]))] == [{"input_ids", "trained", "lengths"}]


def test_packs_of_pairs_are_full(assets):
    """The pairs of dpo_en_demo under Qwen3's tokenizer, cut to 2,048 tokens each and drawn 4,000 times, in packs of
    4,096."""
    from tokenizers import Tokenizer

    rows = json.loads((assets / "data" / "preference" / "dpo_en_demo.json").read_text())
    tokenizer = Tokenizer.from_file(str(assets / "tokenizers" / "qwen3" / "tokenizer.json"))
    sizes = 0
    for side in ("chosen", "rejected"):
        texts = ["\n".join([*(turn["value"] for turn in row["conversations"]), row[side]["value"]]) for row in rows]
        sizes += np.array([min(len(encoded.ids) + 20, 2048) for encoded in tokenizer.encode_batch(texts)])
    drawn = np.random.default_rng(0).choice(sizes, 4000)
    _, bounds = fit(drawn, 4096)
    assert drawn.sum() / ((len(bounds) - 1) * 4096) >= 0.99


# --- in a run ---


def test_training_rows_are_packed_and_evaluation_rows_are_not(write, renderer):
    name = write("rows.jsonl", [{"instruction": "q" * 4, "output": "a" * (2 + row % 3)} for row in range(12)])
    config = DataConfig(dataset=(name,), val_size=4, cutoff_len=30, packing=True)
    datasets = build_datasets(config, renderer, stage="sft", seed=1)
    assert isinstance(datasets.train, PackedDataset)
    assert len(datasets.train.pieces) == 8
    assert len(datasets.train) == 3, "8 rows of 8 to 10 tokens"
    (evaluation,) = datasets.eval.values()
    assert isinstance(evaluation, TokenDataset)
    assert len(evaluation) == 4
    assert datasets.longest == 10, "of a sequence, not of a pack"
    train_split = next(split for split in datasets.report.splits if split.name == "train")
    assert (train_split.samples, train_split.tokens) == (3, datasets.train.num_tokens)


@pytest.mark.parametrize(
    ("keys", "stage", "packs"),
    [
        ({}, "sft", False),
        ({}, "pt", True),
        ({"packing": True}, "sft", True),
        ({"packing": False}, "pt", False),
        ({"neat_packing": True}, "sft", True),
        ({"neat_packing": True}, "pt", True),
    ],
)
def test_when_rows_are_packed(keys, stage, packs):
    assert DataConfig(**keys).packs(stage) is packs
