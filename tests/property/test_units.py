"""The law of units: loss and gradient of the rows of a step do not depend on how they are split into micro-batches,
packs and ranks, whatever the loss of a token is, and are those of each row alone, divided once."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.split_steps import (
    CUTOFF,
    LAYOUTS,
    VOCABULARY,
    WAYS,
    Ranks,
    Row,
    Step,
    one_by_one,
    take_step,
)
from tests.token_losses import CASES
from tests.two_ranks import spare_the_collector

pytestmark = [
    pytest.mark.usefixtures("torch_one_thread"),
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning"),
]


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    found = Ranks()
    yield found
    found.close()


@pytest.fixture(scope="module", autouse=True)
def quick_steps() -> Iterator[None]:
    for way in ("chunked", "adapted"):  # with all that has to be imported
        one_by_one(plain(TRAINED, way=way))
        take_step(plain(TRAINED, way=way))
    spare_the_collector()
    yield
    gc.unfreeze()


@st.composite
def row(draw: Any) -> Row:
    length = draw(st.integers(1, CUTOFF // 2))
    ids = draw(st.lists(st.integers(3, VOCABULARY - 1), min_size=length, max_size=length))
    kind = draw(st.sampled_from(("nothing", "some", "some", "all")))
    weight = {"nothing": st.just(0.0), "all": st.sampled_from((0.5, 1.0, 3.0))}.get(
        kind, st.sampled_from((0.0, 0.001, 1.0, 2.5))
    )
    return Row(tuple(ids), tuple(draw(st.lists(weight, min_size=length, max_size=length))))


steps = st.builds(
    Step,
    rows=st.lists(row(), min_size=1, max_size=7).map(tuple),
    case=st.sampled_from(tuple(CASES)),
    way=st.sampled_from(WAYS),
    layout=st.sampled_from(LAYOUTS),
    batch=st.integers(1, 4),
    spare=st.integers(0, 2),
    weighted=st.booleans(),
)


def assert_same(found: tuple[float, torch.Tensor], wanted: tuple[float, torch.Tensor]) -> None:
    (loss, gradient), (expected, reference) = found, wanted
    assert loss == pytest.approx(expected, rel=2e-6, abs=1e-9)
    assert len(gradient) == len(reference)
    assert float((gradient - reference).norm()) <= 5e-6 * float(reference.norm()) + 1e-9


def plain(*rows: Row, layout: str = "padded", way: str = "chunked", batch: int = 1) -> Step:
    return Step(rows, "plain", way, layout, batch, 0, True)


TRAINED, NOTHING = Row((5, 6, 7, 8), (0.0, 1.0, 2.0, 0.5)), Row((9, 10), (0.0, 0.0))
_few = settings(max_examples=25, deadline=None, derandomize=True, print_blob=False)


@_few
@example(plain(NOTHING))
@example(plain(TRAINED, NOTHING, layout="flat"))
@example(plain(NOTHING, TRAINED, way="kept"))
@given(steps)
def test_a_split_step_is_its_rows_one_by_one(step: Step) -> None:
    assert_same(take_step(step), one_by_one(step))


@_few
@example(plain(TRAINED))  # the other rank has no row
@example(plain(NOTHING, way="adapted"))
@example(plain(Row((3,), (0.0,))))
@example(plain(TRAINED, NOTHING, TRAINED, layout="flat", way="adapted"))
@given(steps)
def test_a_step_of_two_ranks_is_its_rows_one_by_one(ranks: Ranks, step: Step) -> None:
    assert_same(ranks.take(step), one_by_one(step))


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(steps)
def test_many_split_steps_are_their_rows_one_by_one(step: Step) -> None:
    assert_same(take_step(step), one_by_one(step))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(steps)
def test_many_steps_of_two_ranks_are_their_rows_one_by_one(ranks: Ranks, step: Step) -> None:
    assert_same(ranks.take(step), one_by_one(step))
