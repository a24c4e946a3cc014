"""Pairs and answers about media that could not be read are no units: a step is what it would be without them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.pairs import gradient_of, policy_of, token_answers, token_pairs
from tunesmith.config.objective import ObjectiveConfig
from tunesmith.data.collate import FlatCollator, PaddingCollator
from tunesmith.objectives import OBJECTIVES, Objective
from tunesmith.train.reference import Beside

COLLATORS = {"padded": PaddingCollator(0), "flat": FlatCollator(0), "shared": FlatCollator(0, shares=True)}
CASES: dict[str, dict[str, Any]] = {
    "sigmoid": {"stage": "dpo"},
    "aot": {"stage": "dpo", "pref_loss": ("aot",)},
    "bco_pair": {"stage": "dpo", "pref_loss": ("bco_pair",), "pref_ftx": 0.2},
    "kto": {"stage": "kto"},
    "bco": {"stage": "kto", "kto_loss": "bco"},
}


def step(objective: Objective, model: Any, batch: dict[str, Any]) -> tuple[Any, torch.Tensor]:
    if objective.whole_step:
        batch = {**batch, "settled": objective.settle(objective.look(model, batch).double())}
    found = objective.compute(model, batch)
    return found, gradient_of(found.loss_sum, model)


@pytest.mark.parametrize("form", COLLATORS)
@pytest.mark.parametrize("name", CASES)
def test_a_step_is_what_it_would_be_without_them(name: str, form: str) -> None:
    pairs = CASES[name]["stage"] == "dpo"
    rows = token_pairs() if pairs else token_answers()
    objective: Objective = OBJECTIVES.get(CASES[name]["stage"])(ObjectiveConfig(**CASES[name]))
    model, collate = policy_of("chunked", 1), COLLATORS[form]
    objective.reference = Beside(policy_of("chunked", 2))
    left = [row for number, row in enumerate(rows) if number != 1]
    whole = collate(rows)
    bad = torch.zeros(len(rows) * (2 if pairs else 1), dtype=torch.long)
    bad[3 if pairs else 1] = 1
    found, gradient = step(objective, model, {**whole, "bad_media": bad})
    wanted, true = step(objective, model, collate(left))
    assert float(found.units) == objective.count_units({**whole, "bad_media": bad}) == float(wanted.units) == len(left)
    torch.testing.assert_close(found.loss_sum, wanted.loss_sum, rtol=1e-5, atol=1e-6)
    assert float((gradient - true).norm()) <= 1e-5 * float(true.norm())
    for key, value in wanted.metrics.items():
        if key != "entropy":  # in a run the answers of such a row have no trained tokens, so none of it counts
            torch.testing.assert_close(found.metrics[key], value, rtol=1e-5, atol=1e-6, msg=key)


@pytest.mark.parametrize("name", CASES)
def test_a_step_of_nothing_else_is_none(name: str) -> None:
    pairs = CASES[name]["stage"] == "dpo"
    rows = (token_pairs() if pairs else token_answers())[:1]
    objective: Objective = OBJECTIVES.get(CASES[name]["stage"])(ObjectiveConfig(**CASES[name]))
    model = policy_of("chunked", 1)
    objective.reference = Beside(policy_of("chunked", 2))
    batch = {**COLLATORS["flat"](rows), "bad_media": torch.ones(2 if pairs else 1, dtype=torch.long)}
    found, gradient = step(objective, model, batch)
    assert (float(found.units), found.loss_sum.item(), float(gradient.norm())) == (0, 0, 0)
