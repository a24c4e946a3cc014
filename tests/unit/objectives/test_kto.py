"""Learning from answers that were liked or not: what the keys ask for, against transformers' own forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.pairs import feedback_alone, gradient_of, policy_of, token_answers
from tunesmith.config.objective import ObjectiveConfig
from tunesmith.config.preference_facts import FEEDBACK_FACTS
from tunesmith.data.collate import FlatCollator, PaddingCollator
from tunesmith.objectives import OBJECTIVES, Objective
from tunesmith.train.micro import split
from tunesmith.train.reference import Beside, Told

COLLATORS = {"padded": PaddingCollator(0), "flat": FlatCollator(0)}


@pytest.fixture(scope="module")
def plain() -> tuple[Any, Any]:
    """(policy, reference) with transformers' own forward."""
    return policy_of(None, 1), policy_of(None, 2)


@pytest.fixture(scope="module")
def quick() -> tuple[Any, Any]:
    return policy_of("chunked", 1), policy_of("chunked", 2)


def objective_of(reference: Any, **keys: Any) -> Objective:
    found: Objective = OBJECTIVES.get("kto")(ObjectiveConfig(stage="kto", **keys))
    found.reference = Beside(reference)
    return found


KEYS: dict[str, dict[str, Any]] = {
    "kto": {},
    "pref_beta": {"pref_beta": 0.5},
    "kto_chosen_weight": {"kto_chosen_weight": 2.0, "kto_rejected_weight": 0.25},
    "pref_ftx": {"pref_ftx": 0.3},
    "apo": {"kto_loss": "apo_zero_unpaired"},
    "bco": {"kto_loss": "bco", "pref_beta": 0.3},
}


@pytest.mark.parametrize("kind", COLLATORS)
@pytest.mark.parametrize("key", KEYS)
def test_the_keys_say_what_the_loss_is(plain: tuple[Any, Any], quick: tuple[Any, Any], key: str, kind: str) -> None:
    keys = KEYS[key]
    objective = objective_of(quick[1], **keys)
    wanted = feedback_alone(plain, token_answers(), ObjectiveConfig(stage="kto", **keys))[0].sum()
    batch = COLLATORS[kind](token_answers())
    found = objective.compute(quick[0], batch)
    assert float(found.units) == objective.count_units(batch) == 5
    torch.testing.assert_close(found.loss_sum.double(), wanted.double(), rtol=1e-5, atol=1e-5)
    one, other = gradient_of(found.loss_sum, quick[0]), gradient_of(wanted, plain[0])
    assert float((one - other).norm()) < 1e-4 * float(other.norm())


@pytest.mark.parametrize("kind", COLLATORS)
@pytest.mark.parametrize("name", FEEDBACK_FACTS)
def test_the_split_of_a_step_changes_nothing(quick: tuple[Any, Any], name: str, kind: str) -> None:
    """The whole step is looked at in parts too."""
    objective = objective_of(quick[1], kto_loss=name)
    batch = COLLATORS[kind](token_answers())
    whole = objective.compute(quick[0], batch)
    settled = objective.settle(torch.cat([objective.look(quick[0], part).double() for part in split(batch, 0)]))
    parts = [objective.compute(quick[0], part) for part in split({**batch, "settled": settled}, 0)]
    assert len(parts) == 5
    loss = torch.stack([one.loss_sum for one in parts]).sum()
    torch.testing.assert_close(loss, whole.loss_sum, rtol=1e-6, atol=1e-6)
    one, other = gradient_of(whole.loss_sum, quick[0]), gradient_of(loss, quick[0])
    assert float((one - other).norm()) <= 1e-5 * float(other.norm())
    for metric, sums in whole.sums().items():
        each = [part.sums()[metric] for part in parts]
        for which in (0, 1):
            # Rewards are differences of float32 sums, and rows that are padded less are rounded otherwise.
            found, wanted = sum(pair[which] for pair in each).double(), sums[which].double()
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5, msg=metric)


@pytest.mark.parametrize("kind", COLLATORS)
@pytest.mark.parametrize("name", FEEDBACK_FACTS)
def test_rows_may_bring_what_the_reference_says(quick: tuple[Any, Any], name: str, kind: str) -> None:
    """Each answer asked alone, with its answer to another prompt where the loss reads that."""
    objective = objective_of(quick[1], kto_loss=name)
    whole = objective.compute(quick[0], COLLATORS[kind](token_answers()))
    asked = [objective.reference_sums(quick[0], COLLATORS[kind]([row])) for row in token_answers()]
    assert len(asked[0]) == (2 if name == "kto" else 1)
    rows = [
        {**row, **{key: value.numpy() for key, value in sums.items()}}
        for row, sums in zip(token_answers(), asked, strict=True)
    ]
    objective.reference = Told()
    found = objective.compute(quick[0], COLLATORS[kind](rows))
    torch.testing.assert_close(found.loss_sum, whole.loss_sum, rtol=1e-6, atol=1e-6)
    settled = objective.settle(torch.cat([objective.look(quick[0], COLLATORS[kind](rows)).double()]))
    parts = [objective.compute(quick[0], part) for part in split({**COLLATORS[kind](rows), "settled": settled}, 0)]
    loss = torch.stack([part.loss_sum for part in parts]).sum()
    torch.testing.assert_close(loss, whole.loss_sum, rtol=1e-6, atol=1e-6)


def test_metrics_are_means_over_the_answers_that_they_are_of(plain: tuple[Any, Any], quick: tuple[Any, Any]) -> None:
    objective = objective_of(quick[1])
    found = objective.compute(quick[0], COLLATORS["flat"](token_answers()))
    means = {name: float(total / divisor) for name, (total, divisor) in found.sums().items()}
    wanted = feedback_alone(plain, token_answers(), ObjectiveConfig(stage="kto"))[1]
    assert means | objective.derive(means) == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    assert {"kl", "entropy", "rewards/chosen", "rewards/rejected", "rewards/margins"} < wanted.keys()
    assert objective.derive({"rewards/chosen": 1.0}) == {}, "a step of liked answers has no margin"


def test_a_rank_without_answers_gives_nothing(quick: tuple[Any, Any]) -> None:
    objective = objective_of(quick[1])
    row = token_answers()[0]
    blank = {"input_ids": row["input_ids"][:2], "trained": row["trained"][:2] & False}
    for collate in COLLATORS.values():
        batch = collate([blank])
        assert objective.look(quick[0], batch).shape == (0, 3)
        found = objective.compute(quick[0], batch)
        assert (found.loss_sum.item(), float(found.units)) == (0, 0)
        assert found.loss_sum.requires_grad, "several devices wait for a gradient of each"
        assert found.metrics.keys() == objective.compute(quick[0], collate(token_answers())).metrics.keys()
