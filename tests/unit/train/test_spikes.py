"""Median and deviation, on numbers that can be counted by hand."""

from __future__ import annotations

import pytest

from tunesmith.train.spikes import Spikes


def fed(losses: list[float]) -> Spikes:
    spikes = Spikes()
    for loss in losses:
        assert spikes.look(loss) is None
    return spikes


def test_what_is_far_above_the_median_is_one() -> None:
    """Of ten 1.9, ten 2.0 and ten 2.1 the median is 2, and so is 0.1 the median of the distances: sigma is 0.14826."""
    losses = [1.9, 2.0, 2.1] * 10
    assert fed(losses).look(3.4) is None  # 1.4 / 0.14826 = 9.44
    assert fed(losses).look(3.6) == pytest.approx(1.6 / 0.14826)
    assert fed(losses).look(0.1) is None, "below is no spike"


def test_spikes_do_not_hide_the_next_one() -> None:
    spikes = fed([1.9, 2.0, 2.1] * 10)
    assert all(spikes.look(50.0) is not None for _ in range(10))


def test_a_new_level_is_no_spike_for_long() -> None:
    spikes = fed([1.9, 2.0, 2.1] * 40)
    found = [spikes.look(loss) is not None for loss in [4.9, 5.0, 5.1] * 40]
    assert found[0]
    assert not any(found[60:]), "half of the last hundred are of the new level"


def test_nothing_is_said_of_the_first_steps() -> None:
    assert fed([2.0] * 19).look(500.0) is None


def test_where_all_are_alike_a_share_of_the_median_counts() -> None:
    """No deviation at all: a hundredth of 2 stands for it."""
    assert fed([2.0] * 30).look(2.19) is None
    assert fed([2.0] * 30).look(2.21) == pytest.approx(10.5)
