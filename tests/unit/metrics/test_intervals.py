"""Intervals against figures that others have published, and against their own promise."""

from __future__ import annotations

import numpy as np
import pytest

from tunesmith.metrics.intervals import bootstrap, standard_error, wilson


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_equals_the_published_intervals(right: int, count: int, low: float, high: float) -> None:
    """Newcombe 1998, Statistics in Medicine 17, table I: the score method."""
    assert wilson(right, count) == pytest.approx((low, high), abs=5e-5)


def test_wilson_without_questions_knows_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_standard_error_of_a_share() -> None:
    assert standard_error(25, 100) == pytest.approx((0.25 * 0.75 / 100) ** 0.5)


def test_the_bootstrap_interval_holds_the_mean_as_often_as_it_says() -> None:
    draw, held = np.random.default_rng(0), 0
    for trial in range(200):
        rows = draw.normal(3.0, 1.0, (60, 1))
        low, high = bootstrap(rows, lambda sums: sums[:, 0] / 60, seed=trial, draws=400)
        held += low <= 3.0 <= high
    assert 180 <= held <= 199  # 95 % of 200, less what percentile intervals of 60 rows are short of


def test_one_seed_draws_the_same_rows_for_every_figure() -> None:
    rows = np.random.default_rng(1).random((40, 2))
    both = [bootstrap(rows, lambda sums, column=column: sums[:, column] / 40, seed=7) for column in (0, 1)]
    alone = bootstrap(rows[:, :1], lambda sums: sums[:, 0] / 40, seed=7)
    assert alone == pytest.approx(both[0])
    assert both[0] != both[1]
    shifted = bootstrap(rows[:, :1] + 1, lambda sums: sums[:, 0] / 40, seed=7)
    assert shifted == pytest.approx((both[0][0] + 1, both[0][1] + 1))
