"""Sound at another rate: a Kaiser-windowed sinc, applied phase by phase (a polyphase filter).

With L and M the rates without their common divisor, the samples are thought L times as close, filtered below half of
the lower rate, and each M-th is kept; only those are computed. Crochiere and Rabiner, Multirate Digital Signal
Processing (1983), chapter 2.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd

import numpy as np
import numpy.typing as npt

__all__ = ["filter_taps", "resample", "resampled_length"]

_CROSSINGS = 32  # zero crossings of the sinc on either side
_BETA = 10.0  # of the Kaiser window: what is folded back lies 100 dB below
_PASSED = 0.94  # of half the lower rate


def resampled_length(samples: int, rate: int, to: int) -> int:
    return -(-samples * to // rate)


@lru_cache(maxsize=16)
def filter_taps(up: int, down: int) -> npt.NDArray[np.float64]:
    """The filter at the rate that is `up` times the first one: odd length, its middle at time 0, sum `up`."""
    wider = max(up, down)
    half = _CROSSINGS * wider
    at = np.arange(-half, half + 1) / wider * _PASSED
    taps = np.sinc(at) * np.kaiser(2 * half + 1, _BETA)
    filtered: npt.NDArray[np.float64] = taps * (up / taps.sum())
    return filtered


def resample(samples: npt.NDArray[np.float32], rate: int, to: int) -> npt.NDArray[np.float32]:
    """float32 [S] at `rate` Hz -> float32 [ceil(S * to / rate)] at `to` Hz. Silence lies before and behind it."""
    if rate == to:
        return samples
    up, down = to // gcd(rate, to), rate // gcd(rate, to)
    taps = filter_taps(up, down)
    half = len(taps) // 2
    reach = half // up + 1  # input samples on either side that one output depends on
    padded = np.pad(samples, (reach, reach + down))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    out = np.empty(resampled_length(len(samples), rate, to), np.float32)
    for phase in range(min(up, len(out))):
        # Output number phase + q * up stands at phase * down + q * up * down of the closer samples.
        first, rest = divmod(phase * down, up)
        at = half + rest + (reach - np.arange(2 * reach + 1)) * up  # of the taps, for inputs first - reach ...
        fits = (at >= 0) & (at < len(taps))
        weights = np.where(fits, taps[np.clip(at, 0, len(taps) - 1)], 0).astype(np.float32)
        places = out[phase::up]
        places[:] = windows[first::down][: len(places)] @ weights
    return out
