"""Sequences that are attended to together, against each by itself."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tests.unit.models.test_attention import LAYER, tensors
from tunesmith.models import groups
from tunesmith.models.attention import varlen_attention
from tunesmith.models.groups import attend_in_groups


@settings(deadline=None, max_examples=80)
@given(st.lists(st.integers(1, 24), min_size=1, max_size=9), st.integers(3, 30), st.integers(0, 2**31))
def test_groups_are_the_sequences_alone(lengths: list[int], alone: int, seed: int) -> None:
    query, key, value = tensors(sum(lengths), 2, 2, value_size=3, seed=seed)
    bounds = (0, *torch.tensor(lengths).cumsum(0).tolist())
    calls: list[tuple[int, int]] = []

    def attend(*parts: Tensor) -> Tensor:
        calls.append((parts[0].shape[0], parts[0].shape[2]))
        return scaled_dot_product_attention(*parts, is_causal=True)

    before, groups.ALONE = groups.ALONE, alone
    groups._grouped.cache_clear()
    try:
        found = attend_in_groups(attend, query, key, value, bounds)
    finally:
        groups.ALONE = before
        groups._grouped.cache_clear()
    parts = [[one[:, :, start:end] for one in (query, key, value)] for start, end in pairwise(bounds)]
    expected = torch.cat([scaled_dot_product_attention(*part, is_causal=True) for part in parts], dim=2).transpose(1, 2)
    torch.testing.assert_close(found, expected)
    pull = torch.randn(found.shape, generator=torch.Generator().manual_seed(seed), dtype=found.dtype)
    wanted = torch.autograd.grad(expected, (query, key, value), pull)
    for one, other in zip(torch.autograd.grad(found, (query, key, value), pull), wanted, strict=True):
        torch.testing.assert_close(one, other)
    assert sum(count for count, _ in calls) == len(lengths)
    assert sum(count * length for count, length in calls) <= sum(lengths) / groups.FULL
    assert all(count == 1 for count, length in calls if length >= alone)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("heads", [(4, 4), (6, 2)])
def test_half_precision_is_near_double(kind: torch.dtype, heads: tuple[int, int]) -> None:
    lengths = [30, 28, 5, 300]  # two that are stacked, one that is short, one that is left to the fused kernel
    exact = tensors(sum(lengths), *heads, size=16, value_size=16)
    bounds = (0, *torch.tensor(lengths).cumsum(0).tolist())
    half = [one.detach().to(kind).requires_grad_() for one in exact]
    found, expected = (varlen_attention(LAYER, *three, None, bounds=bounds)[0] for three in (half, exact))
    assert found.dtype == kind
    torch.testing.assert_close(found.double(), expected, rtol=2e-2, atol=2e-2)
    gradients = zip(torch.autograd.grad(found.sum(), half), torch.autograd.grad(expected.sum(), exact), strict=True)
    for one, other in gradients:
        assert (one.double() - other).norm() <= 1e-2 * max(float(other.norm()), 1.0)


def test_groups_are_counted_without_a_look_at_the_device() -> None:
    """The device `meta` holds no numbers: whatever reads one raises."""
    groups._grouped.cache_clear()
    found, order = groups._grouped((0, 5, 30, 36), torch.device("meta"))
    groups._grouped.cache_clear()
    assert [group.count for group in found] == [1, 2]
    assert order is not None
    assert {one.device.type for one in (*order, *found[1][2:])} == {"meta"}
