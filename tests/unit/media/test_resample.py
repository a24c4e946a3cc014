"""The polyphase filter against scipy's, with the same taps, and against sines."""

from __future__ import annotations

import tracemalloc
from math import gcd

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

from tunesmith.media.resample import BETA, CROSSINGS, PASSED, resample, resampled_length

RATES = [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000]


def of_scipy(samples: np.ndarray, rate: int, to: int) -> np.ndarray:
    """With a window made by numpy; scipy makes its sum 1."""
    up, down = to // gcd(rate, to), rate // gcd(rate, to)
    half = CROSSINGS * max(up, down)
    window = np.sinc(np.arange(-half, half + 1) / max(up, down) * PASSED) * np.kaiser(2 * half + 1, BETA)
    return resample_poly(samples.astype(float), up, down, window=window / window.sum())


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(RATES), st.sampled_from(RATES), st.integers(1, 900), st.integers(0, 2**32 - 1))
def test_samples_are_those_of_scipy(rate: int, to: int, count: int, seed: int) -> None:
    samples = np.random.default_rng(seed).uniform(-1, 1, count).astype(np.float32)
    found, witness = resample(samples, rate, to), samples if rate == to else of_scipy(samples, rate, to)
    assert found.dtype == np.float32
    assert len(found) == len(witness) == resampled_length(count, rate, to)
    assert np.abs(found - witness).max() < 1e-5


def test_odd_rates_cost_no_memory() -> None:
    """1001 and 1000 have no divisor in common: 1000 phases, and 64,000 taps if they were written out."""
    samples = np.random.default_rng(1).uniform(-1, 1, 3_000).astype(np.float32)
    tracemalloc.start()
    found = resample(samples, 1_001, 1_000)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 200_000  # those taps take 512 kB
    assert np.abs(found - of_scipy(samples, 1_001, 1_000)).max() < 1e-5


def sine(hertz: float, rate: int, seconds: float = 0.5) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate).astype(np.float32)


@pytest.mark.parametrize(("rate", "to"), [(48_000, 16_000), (44_100, 16_000), (8_000, 16_000), (22_050, 16_000)])
@pytest.mark.parametrize("hertz", [100, 1_000, 3_300])
def test_a_tone_stays_that_tone(rate: int, to: int, hertz: int) -> None:
    """In time, loudness and pitch, but for the edges that the filter sees silence behind."""
    found, wanted = resample(sine(hertz, rate), rate, to), sine(hertz, to)
    inner = slice(to // 50, -to // 50)
    assert np.abs(found[: len(wanted)][inner] - wanted[inner]).max() < 1e-4


@pytest.mark.parametrize("hertz", [8_500, 12_000, 20_000])
def test_what_the_lower_rate_cannot_hold_is_silent(hertz: int) -> None:
    """16 kHz holds tones up to 8 kHz; others would come back as tones that were not there. 80 dB are 1e-4."""
    found = resample(sine(hertz, 48_000), 48_000, 16_000)
    assert np.abs(found[400:-400]).max() < 1e-4
