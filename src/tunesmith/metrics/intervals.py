"""How sure a figure is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["CONFIDENCE", "bootstrap", "standard_error", "wilson"]

CONFIDENCE = 0.95
_Z = 1.959963984540054
"""The standard normal quantile of (1 + CONFIDENCE) / 2."""


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927), which stays within 0 and 1 and is right for few questions."""
    if not count:
        return 0.0, 1.0
    share, square = right / count, _Z * _Z
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = _Z / (1 + square / count) * sqrt(share * (1 - share) / count + square / (4 * count * count))
    return middle - half if right else 0.0, middle + half if right < count else 1.0


def standard_error(right: int, count: int) -> float:
    """Of a share: sqrt(p (1 - p) / n)."""
    share = right / count if count else 0.0
    return sqrt(share * (1 - share) / count) if count else 0.0


def bootstrap(
    rows: Sequence[Sequence[float]] | npt.NDArray[Any],
    figure: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
    *,
    seed: int,
    draws: int = 1000,
) -> tuple[float, float]:
    """The 95 % percentile interval of a figure over rows that are drawn with replacement (Efron 1979).

    rows [N, K] what each row adds; figure: [draws, K] sums over the drawn rows -> [draws]. With one seed the same rows
    are drawn for every figure, so figures of one run, and of two runs over the same rows, are compared row by row.
    """
    values = np.asarray(rows, dtype=np.float64)
    draw = np.random.default_rng(seed)
    count = len(values)
    sums = np.empty((draws, values.shape[1]))
    for number in range(draws):
        times = np.bincount(draw.integers(0, count, count), minlength=count)
        sums[number] = times @ values
    low, high = np.quantile(figure(sums), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
