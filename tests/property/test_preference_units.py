"""The law of units for preferences: loss, gradient and metrics of a step do not depend on how its pairs or answers are
split into micro-batches, packs and ranks, and are those of each sequence alone, also where a loss looks at all of them.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.split_preferences import CASES, LAYOUTS, WAYS, Step, one_by_one, take_step
from tests.split_steps import Ranks
from tests.two_ranks import spare_the_collector

pytestmark = [
    pytest.mark.usefixtures("torch_one_thread"),
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning"),
]


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    found = Ranks("tests.split_preferences")
    yield found
    found.close()


@pytest.fixture(scope="module", autouse=True)
def quick_steps() -> Iterator[None]:
    for case, way in (("aot", "chunked"), ("kto", "adapted"), ("rm", "chunked")):  # with all that has to be imported
        one_by_one(plain(case, way=way))
        take_step(plain(case, way=way))
    spare_the_collector()
    yield
    gc.unfreeze()


TOKENS = st.integers(1, 6)  # a prompt, an answer: both fit into LONGEST
steps = st.builds(
    Step,
    case=st.sampled_from(tuple(CASES)),
    sizes=st.lists(st.tuples(TOKENS, TOKENS, TOKENS), min_size=1, max_size=6).map(tuple),
    seed=st.integers(0, 9),
    way=st.sampled_from(WAYS),
    layout=st.sampled_from(LAYOUTS),
    batch=st.integers(1, 3),
    spare=st.integers(0, 2),
    weighted=st.booleans(),
)
SIZES = ((3, 4, 2), (1, 1, 5), (5, 2, 3))


def plain(case: str, *, way: str = "chunked", layout: str = "padded", count: int = 3, spare: int = 0) -> Step:
    return Step(case, SIZES[:count], 0, way, layout, 1, spare, False)


def assert_same(found: tuple[dict[str, float], torch.Tensor], wanted: tuple[dict[str, float], torch.Tensor]) -> None:
    (told, gradient), (expected, reference) = found, wanted
    assert told == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert len(gradient) == len(reference)
    assert float((gradient - reference).norm()) <= 1e-5 * float(reference.norm()) + 1e-7


_few = settings(max_examples=20, deadline=None, derandomize=True, print_blob=False)


@_few
@example(plain("kto_pair", layout="shared"))
@example(plain("WPO of a whole step", layout="packs", way="adapted"))
@example(plain("aot", layout="rows of packs", way="full", spare=1))
@example(plain("kto", layout="packs", way="kept"))
@example(plain("bco", count=1))
@example(plain("rm centred", layout="shared"))
@example(plain("rm margins", layout="packs"))
@example(plain("rm margins"))
@given(steps)
def test_a_split_step_is_its_sequences_one_by_one(step: Step) -> None:
    assert_same(take_step(step), one_by_one(step))


@_few
@example(plain("aot", count=1))  # the other rank has no pair
@example(plain("kto", count=1, layout="flat", way="adapted"))
@example(plain("bco", spare=1))
@example(plain("mixture of whole steps", layout="shared", way="adapted"))
@example(plain("rm", count=1, layout="shared"))
@given(steps)
def test_a_step_of_two_ranks_is_its_sequences_one_by_one(ranks: Ranks, step: Step) -> None:
    assert_same(ranks.take(step), one_by_one(step))


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(steps)
def test_many_split_steps_are_their_sequences_one_by_one(step: Step) -> None:
    assert_same(take_step(step), one_by_one(step))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(steps)
def test_many_steps_of_two_ranks_are_their_sequences_one_by_one(ranks: Ranks, step: Step) -> None:
    assert_same(ranks.take(step), one_by_one(step))
