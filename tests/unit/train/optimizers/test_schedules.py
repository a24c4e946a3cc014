"""The learning rate of every schedule at a few steps, against its formula."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import get_scheduler

from tunesmith.config.schedule_facts import SCHEDULES
from tunesmith.core.errors import UsageError
from tunesmith.train.optimizers.schedule import making_schedule, stable_and_decay

STEPS, WARMUP = 20, 4
AT = (0, 2, 4, 8, 12, 19)


def rates(name: str, given: dict[str, Any] | None = None) -> list[float]:
    """The rate of each step, as a share of that of the config."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    arguments = SimpleNamespace(lr_scheduler_type=name, lr_scheduler_kwargs=given, get_warmup_steps=lambda _: WARMUP)
    with making_schedule(arguments, STEPS):
        schedule = get_scheduler(name, optimizer, WARMUP, STEPS, arguments.lr_scheduler_kwargs)
    found = []
    for _ in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"] / 0.5)
        optimizer.step()
        schedule.step()
    return found


def warmed(step: int, later: float) -> float:
    return step / WARMUP if step < WARMUP else later


def cosine(step: int, waves: float = 0.5, least: float = 0.0) -> float:
    share = (step - WARMUP) / (STEPS - WARMUP)
    return warmed(step, 0.5 * (1 + math.cos(2 * math.pi * waves * share)) * (1 - least) + least)


FORMULAS: dict[str, tuple[dict[str, Any], Any]] = {
    "linear": ({}, lambda n: warmed(n, (STEPS - n) / (STEPS - WARMUP))),
    "cosine": ({}, cosine),
    "cosine_with_restarts": (
        {"num_cycles": 2},
        lambda n: warmed(n, 0.5 * (1 + math.cos(math.pi * (2 * (n - WARMUP) / (STEPS - WARMUP) % 1)))),
    ),
    "polynomial": (
        {"power": 2.0, "lr_end": 0.05},
        lambda n: warmed(n, (0.45 * (1 - (n - WARMUP) / (STEPS - WARMUP)) ** 2 + 0.05) / 0.5),
    ),
    "constant": ({}, lambda n: 1.0),
    "constant_with_warmup": ({}, lambda n: warmed(n, 1.0)),
    "inverse_sqrt": ({"timescale": 9}, lambda n: warmed(n, math.sqrt(9 / (n - WARMUP + 9)))),
    "cosine_with_min_lr": ({"min_lr": 0.05}, lambda n: cosine(n, least=0.1)),
    "cosine_warmup_with_min_lr": (
        {"min_lr_rate": 0.1, "warmup_lr_rate": 0.2},
        lambda n: 0.2 + 0.8 * n / (WARMUP - 1) if n < WARMUP else cosine(n + 1, least=0.1),
    ),
    # 16 steps after the warm-up: 5 stable, 11 that decay
    "warmup_stable_decay": (
        {},
        lambda n: warmed(n, 1.0 if n < 9 else 0.5 * (1 + math.cos(math.pi * (n - 9) / 11))),
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_the_rate_is_that_of_the_formula(name: str) -> None:
    given, formula = FORMULAS[name]
    found = rates(name, given or None)
    for step in AT:
        assert found[step] == pytest.approx(formula(step), rel=1e-6, abs=1e-9), step


def test_every_schedule_is_tried() -> None:
    assert set(SCHEDULES) == {*FORMULAS, "reduce_lr_on_plateau", "greedy"}  # which follow what evaluations find


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("reduce_lr_on_plateau", {"patience": 1, "factor": 0.5}, [1, 0.5, 0.5, 0.25, 0.25]),  # the second in a row
        (
            "greedy",
            {"patience": 0, "factor": 0.5, "min_lr": 0.1},
            [1, 0.5, 0.25, 0.2, 0.2],
        ),  # what got better doubled it before
    ],
)
def test_what_does_not_get_better_slows_down(name: str, given: dict[str, Any], expected: list[float]) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = get_scheduler(name, optimizer, 0, STEPS, given)
    schedule.step(0.9)
    found = []
    for _ in expected:
        schedule.step(1.0)
        found.append(optimizer.param_groups[0]["lr"] / 0.5)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("given", "stable", "decay"),
    [
        ({}, 5, 11),
        ({"num_decay_steps": 6}, 10, 6),
        ({"num_stable_steps": 2}, 2, 14),
        ({"num_stable_steps": 3, "num_decay_steps": 4}, 3, 4),
    ],
)
def test_steps_that_are_left_out_are_the_rest(given: dict[str, int], stable: int, decay: int) -> None:
    found = stable_and_decay({**given, "min_lr_ratio": 0.1}, STEPS, WARMUP)
    assert found == {"num_stable_steps": stable, "num_decay_steps": decay, "min_lr_ratio": 0.1}
    followed = rates("warmup_stable_decay", {**given, "decay_type": "linear"})
    assert followed[WARMUP : WARMUP + stable] == [1.0] * stable
    assert all(rate < 1 for rate in followed[WARMUP + stable + 1 :])


def test_what_transformers_refuses_is_told_with_the_key() -> None:
    with pytest.raises(UsageError, match="lr_end") as caught:
        rates("polynomial", {"lr_end": 1.0})
    assert caught.value.code == "E-OPTIM-013"
