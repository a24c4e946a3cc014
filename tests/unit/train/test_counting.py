"""Progress of data preparation: silent when fast, lines with an ETA when slow."""

from __future__ import annotations

import logging

import pytest

from tunesmith.train import counting
from tunesmith.train.counting import Counting


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [100.0]
    monkeypatch.setattr(counting.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def lines(caplog):
    logging.getLogger("tunesmith").propagate = True
    caplog.set_level("INFO", logger="tunesmith")
    return lambda: [record.getMessage() for record in caplog.records]


def test_what_is_fast_says_nothing(clock, lines):
    with Counting("rendering", "rows") as count:
        clock[0] += 1.9
        count(500, 1000)
    assert lines() == []


def test_what_is_slow_gives_a_line_every_ten_seconds(clock, lines):
    with Counting("rendering", "rows") as count:
        for done in range(1, 26):
            clock[0] += 1.0
            count(done * 1000, 100_000)
    assert lines() == [
        "rendering: 2,000/100,000 rows, ETA 1:38",
        "rendering: 12,000/100,000 rows, ETA 1:28",
        "rendering: 22,000/100,000 rows, ETA 1:18",
    ]


def test_an_unknown_total_has_no_eta(clock, lines):
    with Counting("rendering", "rows") as count:
        clock[0] += 3.0
        count(7, None)
    assert lines() == ["rendering: 7 rows"]
