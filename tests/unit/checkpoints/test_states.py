"""States of optimizers, schedules and generators go to files and come back to the bit."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tunesmith.checkpoints.chance import Chance
from tunesmith.checkpoints.states import copied, has_tree, load_tree, save_tree


def same(one: Any, other: Any) -> bool:
    """Equal in values, types and bits."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)  # repr: -0.0, nan


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
kinds = st.sampled_from([torch.float32, torch.bfloat16, torch.uint8, torch.int64, torch.bool])
tensors = st.builds(lambda kind, shape: torch.ones(shape, dtype=kind), kinds, st.lists(st.integers(0, 3), max_size=3))
trees = st.recursive(
    leaves | tensors,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=4), inner, max_size=3)
        | st.dictionaries(st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(tree=trees)
def test_a_tree_comes_back(tree: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("states")
    save_tree(folder, "state", tree)
    assert has_tree(folder, "state")
    assert same(load_tree(folder, "state"), tree)
    assert same(copied(tree), tree)


def test_what_has_no_place_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"no place in a checkpoint for object at a\.0"):
        save_tree(tmp_path, "state", {"a": [object()]})


def test_one_tensor_in_two_places_stays_one_and_views_are_told_apart(tmp_path: Path) -> None:
    base = torch.arange(6.0)
    save_tree(tmp_path, "state", {"a": base, "b": base, "c": base[2:4], "d": base.view(2, 3).t()})
    found = load_tree(tmp_path, "state")
    assert found["a"] is found["b"]
    assert found["c"].tolist() == [2, 3]
    assert found["d"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_copies_do_not_change_with_what_they_were_made_from() -> None:
    weight = torch.zeros(3)
    kept = copied({"state": {0: {"exp_avg": weight}}})
    weight += 1
    assert kept["state"][0]["exp_avg"].tolist() == [0, 0, 0]


OPTIMIZERS = {
    "adamw": lambda weights: torch.optim.AdamW(weights, lr=0.1),
    "fused": lambda weights: torch.optim.AdamW(weights, lr=0.1, fused=True),
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9),
    "adagrad": lambda weights: torch.optim.Adagrad(weights, lr=0.1),
    "rmsprop": lambda weights: torch.optim.RMSprop(weights, lr=0.1, centered=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_goes_on_as_if_nothing_had_been(name: str, tmp_path: Path) -> None:
    def train(layer: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            optimizer.zero_grad()
            layer(torch.full((2, 3), float(step))).square().sum().backward()
            optimizer.step()

    def make() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        layer = nn.Linear(3, 4)
        return layer, OPTIMIZERS[name](layer.parameters())

    whole, optimizer = make()
    train(whole, optimizer, range(1, 7))
    first, optimizer = make()
    train(first, optimizer, range(1, 4))
    save_tree(tmp_path, "optimizer", optimizer.state_dict())
    second, optimizer = make()
    second.load_state_dict(first.state_dict())
    optimizer.load_state_dict(load_tree(tmp_path, "optimizer"))
    train(second, optimizer, range(4, 7))
    assert torch.equal(second.weight, whole.weight)
    assert torch.equal(second.bias, whole.bias)


def test_generators_go_on_where_they_were(tmp_path: Path) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.normal()), float(torch.randn(()))

    before = Chance(torch.device("cpu"))
    draw()
    save_tree(tmp_path, "chance", Chance(torch.device("cpu")).to_tree())
    expected = [draw() for _ in range(3)]
    before.restore()
    Chance.from_tree(load_tree(tmp_path, "chance"), torch.device("cpu")).restore()
    assert [draw() for _ in range(3)] == expected
