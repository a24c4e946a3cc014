"""Which rows a rank sees: every row once an epoch, in an order that no split changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.train.sampler import BLANK, ORDERS, BlankableDataset, RankBatchSampler, is_blank


def rows_of_steps(lengths, batch_size, accumulation, world_size, order, epoch):
    """The sets of rows that each optimizer step sees, over all ranks and micro-batches."""
    ranks = []
    for rank in range(world_size):
        sampler = RankBatchSampler(
            lengths,
            batch_size,
            order=order,
            seed=3,
            rank=rank,
            world_size=world_size,
            step_rows=batch_size * accumulation * world_size,
        )
        sampler.set_epoch(epoch)
        ranks.append(list(sampler))
    assert len({len(batches) for batches in ranks}) == 1, "every rank takes part in every step"
    steps = []
    for begin in range(0, len(ranks[0]), accumulation):
        micro = [batch for batches in ranks for batch in batches[begin : begin + accumulation]]
        steps.append(sorted(row for batch in micro for row in batch if row != BLANK))
    return steps


@given(
    lengths=st.lists(st.integers(1, 100), min_size=1, max_size=60),
    order=st.sampled_from(sorted(ORDERS)),
    epoch=st.integers(0, 3),
)
def test_a_step_holds_the_same_rows_however_it_is_split(lengths, order, epoch):
    splits = [(4, 1, 1), (2, 2, 1), (1, 4, 1), (2, 1, 2), (1, 2, 2), (1, 1, 4)]
    first, *others = [rows_of_steps(lengths, *split, order, epoch) for split in splits]
    assert all(other == first for other in others)
    assert sorted(row for step in first for row in step) == list(range(len(lengths)))


def test_epochs_differ_and_come_back():
    sampler = RankBatchSampler([5] * 40, 4, order="random", seed=1)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_sequential_is_the_order_of_the_file():
    assert list(RankBatchSampler([9, 1, 5], 2)) == [[0, 1], [2]]


def test_group_by_length_saves_padding():
    lengths = np.random.default_rng(0).integers(1, 500, size=400)

    def padding(order):
        sampler = RankBatchSampler(lengths, 4, order=order, seed=0)
        return sum(len(batch) * lengths[batch].max() - lengths[batch].sum() for batch in sampler)

    assert padding("group_by_length") < padding("random") / 4


def test_drop_last_leaves_the_short_batch_out():
    sampler = RankBatchSampler([1] * 5, 2, drop_last=True)
    assert list(sampler) == [[0, 1], [2, 3]]
    assert len(sampler) == 2


def test_a_blank_row_trains_nothing():
    rows = [{"input_ids": np.array([4, 5, 6], np.int32), "trained": np.array([False, True, True])}]
    blank = BlankableDataset(rows)[BLANK]
    assert not blank["trained"].any()
    assert is_blank({"labels": torch.full((1, len(blank["input_ids"])), -100)})


@pytest.mark.parametrize("labels", [[[-100, 7]], [[-100, -100, -100]], [[-100, -100], [-100, -100]]])
def test_a_real_batch_is_not_blank(labels):
    assert not is_blank({"labels": torch.tensor(labels)})
