"""Sound at another rate: a Kaiser-windowed sinc, applied phase by phase (a polyphase filter).

With L and M the rates without their common divisor, the samples are thought L times as close, filtered below half of
the lower rate, and each M-th is kept; only those are computed. Crochiere and Rabiner, Multirate Digital Signal
Processing (1983), chapter 2.
"""

from __future__ import annotations

from functools import cache
from math import gcd

import numpy as np
import numpy.typing as npt

__all__ = ["BETA", "CROSSINGS", "PASSED", "resample", "resampled_length"]

CROSSINGS = 32
"""Zero crossings of the sinc on either side."""
BETA = 10.0
"""Of the Kaiser window: what is folded back lies 100 dB below."""
PASSED = 0.94
"""Of half the lower rate."""


def resampled_length(samples: int, rate: int, to: int) -> int:
    return -(-samples * to // rate)


def resample(samples: npt.NDArray[np.float32], rate: int, to: int) -> npt.NDArray[np.float32]:
    """float32 [S] at `rate` Hz -> float32 [ceil(S * to / rate)] at `to` Hz. Silence lies before and behind it."""
    if rate == to:
        return samples
    up, down = to // gcd(rate, to), rate // gcd(rate, to)
    wider = max(up, down)
    reach = CROSSINGS * wider // up + 1  # input samples on either side that one output depends on
    padded = np.pad(samples, (reach, reach + down))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    distance = (np.arange(2 * reach + 1) - reach) * up  # in the closer samples, from the input before the output
    out = np.empty(resampled_length(len(samples), rate, to), np.float32)
    for phase in range(min(up, len(out))):
        # Output number phase + q * up stands at phase * down + q * up * down of the closer samples.
        first, rest = divmod(phase * down, up)
        weights = _taps((distance - rest) / wider) * (up / wider)
        places = out[phase::up]
        places[:] = windows[first::down][: len(places)] @ weights.astype(np.float32)
    return out


def _taps(at: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The filter at distances from its middle, in zero crossings of a sinc that passes all; its integral is 1."""
    taps: npt.NDArray[np.float64] = _shape(at) / _integral()
    return taps


def _shape(at: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    window = np.i0(BETA * np.sqrt(np.maximum(0, 1 - (at / CROSSINGS) ** 2))) / np.i0(BETA)
    shape: npt.NDArray[np.float64] = np.where(np.abs(at) <= CROSSINGS, np.sinc(at * PASSED) * window, 0)
    return shape


@cache
def _integral() -> float:
    at, step = np.linspace(-CROSSINGS, CROSSINGS, 64 * CROSSINGS + 1, retstep=True)
    return float(_shape(at).sum() * step)
