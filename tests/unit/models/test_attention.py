"""Attention over flat batches against arithmetic that is written out, one sequence at a time."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.flex_on_cpu import QUIET, flex_on_cpu
from tunesmith.core.errors import UsageError
from tunesmith.models import attention
from tunesmith.models.attention import calls, flex_attention, varlen_attention

LAYER = SimpleNamespace(training=False, is_causal=True)
pytestmark = QUIET


def tensors(length: int, heads: int, groups: int, size: int = 4, value_size: int = 4, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((1, heads, length, size), (1, groups, length, size), (1, groups, length, value_size))
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


def written_out(query: Tensor, key: Tensor, value: Tensor, scale: float, **more: Any) -> Tensor:
    """[L, H, D] of one sequence [H, L, D], position by position."""
    heads, length, _ = query.shape
    rows = []
    for at in range(length):
        first = 0 if more.get("window") is None else max(0, at - more["window"] + 1)
        row = []
        for head in range(heads):
            group = head * key.shape[0] // heads
            scores = key[group, first : at + 1] @ query[head, at] * scale
            if more.get("cap") is not None:
                scores = more["cap"] * torch.tanh(scores / more["cap"])
            if more.get("sinks") is not None:
                scores = torch.cat([scores, more["sinks"][head : head + 1]])
            shares = scores.softmax(0)[: at + 1 - first]
            row.append(shares @ value[group, first : at + 1])
        rows.append(torch.stack(row))
    return torch.stack(rows)


Case = tuple[list[int], tuple[int, int], int | None, float | None, bool, float | None, int]
CASES: st.SearchStrategy[Case] = st.tuples(
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.sampled_from([(1, 1), (4, 2), (6, 1)]),
    st.sampled_from([None, 1, 3, 20]),
    st.sampled_from([None, 2.0]),
    st.booleans(),
    st.sampled_from([None, 0.3]),
    st.integers(0, 2**31),
)
"""Lengths, heads and those of keys and values, window, soft cap, whether there are sinks, scaling, seed."""


@settings(deadline=None, max_examples=60)
@given(CASES)
def test_each_sequence_attends_to_itself(case: Case) -> None:
    attends_to_itself(varlen_attention, case)


@settings(deadline=None, max_examples=10)
@given(CASES)
def test_each_sequence_attends_to_itself_by_flex(case: Case) -> None:
    with flex_on_cpu():
        attends_to_itself(flex_attention, case)


def attends_to_itself(attend: Any, case: Case) -> None:
    lengths, heads, window, cap, with_sinks, scaling, seed = case
    query, key, value = tensors(sum(lengths), *heads, seed=seed)
    bounds = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    sinks = torch.linspace(-1, 1, heads[0], dtype=torch.float64) if with_sinks else None
    before = calls()
    how = {"scaling": scaling, "sliding_window": window, "softcap": cap, "s_aux": sinks, "bounds": bounds}
    found, _ = attend(LAYER, query, key, value, None, **how)
    assert calls() == before + 1
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    expected = torch.cat(
        [
            written_out(
                *(one[0, :, start:end] for one in (query, key, value)), scale, window=window, cap=cap, sinks=sinks
            )
            for start, end in pairwise(bounds)
        ]
    )[None]
    tolerance = {"rtol": 1e-5, "atol": 1e-6}  # scores that are written out are summed in float32, as transformers does
    torch.testing.assert_close(found, expected, **tolerance)
    pairs = zip(
        *(torch.autograd.grad(one.square().sum(), (query, key, value)) for one in (found, expected)), strict=True
    )
    for one, other in pairs:
        torch.testing.assert_close(one, other, **tolerance)


def test_a_long_sequence_is_cut_into_blocks_of_its_window(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = tensors(40, 2, 1)
    whole, _ = varlen_attention(LAYER, query, key, value, None, sliding_window=6, bounds=[0, 40])
    monkeypatch.setattr(attention, "WINDOW_BLOCK", 7)
    cut, _ = varlen_attention(LAYER, query, key, value, None, sliding_window=6, bounds=[0, 40])
    torch.testing.assert_close(cut, whole)


def test_values_may_have_another_size() -> None:
    query, key, value = tensors(9, 2, 2, size=6, value_size=3)
    found, _ = varlen_attention(LAYER, query, key, value, None, bounds=[0, 4, 9])
    assert found.shape == (1, 9, 2, 3)
    with flex_on_cpu():
        flex, _ = flex_attention(LAYER, query, key, value, None, bounds=[0, 4, 9])
    torch.testing.assert_close(flex, found)


def test_a_layer_may_attend_in_chunks_of_a_sequence() -> None:
    """Chunks of 3: of 4 and 5 positions that makes sequences of 3, 1, 3 and 2."""
    query, key, value = tensors(9, 2, 1)
    layer = SimpleNamespace(training=False, is_causal=True, varlen_chunk=3)
    expected, _ = varlen_attention(LAYER, query, key, value, None, bounds=[0, 3, 4, 7, 9])
    found, _ = varlen_attention(layer, query, key, value, None, bounds=[0, 4, 9])
    torch.testing.assert_close(found, expected)
    with flex_on_cpu():
        flex, _ = flex_attention(layer, query, key, value, None, bounds=[0, 4, 9])
    torch.testing.assert_close(flex, expected)


@pytest.mark.parametrize("attend", [varlen_attention, flex_attention])
@pytest.mark.parametrize("cap", [None, 2.0])
def test_with_a_mask_it_is_ordinary_attention(attend: Any, cap: float | None) -> None:
    query, key, value = tensors(6, 2, 1)
    seen = torch.ones(6, 6, dtype=torch.bool).tril()
    found, _ = attend(LAYER, query, key, value, seen[None, None], softcap=cap)
    alone, _ = varlen_attention(LAYER, query, key, value, None, softcap=cap, bounds=[0, 6])
    torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-6)
    added = torch.zeros(6, 6, dtype=torch.float64).masked_fill(~seen, -1e30)
    torch.testing.assert_close(attend(LAYER, query, key, value, added[None, None], softcap=cap)[0], found)


def test_dropout_is_for_training() -> None:
    query, key, value = tensors(9, 2, 1)
    layer = SimpleNamespace(training=True, is_causal=True)
    still, _ = varlen_attention(LAYER, query, key, value, None, dropout=0.5, bounds=[0, 9])
    for cap in (None, 1e9):
        moved, _ = varlen_attention(layer, query, key, value, None, dropout=0.5, softcap=cap, bounds=[0, 9])
        assert not torch.allclose(moved, still)


def test_flex_says_that_it_has_no_dropout() -> None:
    query, key, value = tensors(9, 2, 1)
    layer = SimpleNamespace(training=True, is_causal=True)
    with pytest.raises(UsageError) as caught:
        flex_attention(layer, query, key, value, None, dropout=0.5, bounds=[0, 9])
    assert caught.value.code == "E-TRAIN-053"
