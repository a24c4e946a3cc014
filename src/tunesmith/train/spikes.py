"""Losses of steps that lie far above those before them."""

from __future__ import annotations

from collections import deque
from statistics import median

__all__ = ["Spikes"]

_WINDOW = 100  # steps that are compared with
_LEAST = 20  # steps before anything is called unusual
_FAR = 10.0  # deviations
_TO_SIGMA = 1.4826  # of the normal distribution: its median absolute deviation is sigma / 1.4826
_LEAST_SHARE = 0.01  # of the median: where all losses are alike, rounding is no spike


class Spikes:
    """Median and median absolute deviation of the last steps: one spike, or a few, move neither."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_WINDOW)

    def look(self, loss: float) -> float | None:
        """How many deviations this step's loss lies above the median of those before, where that is far; else None."""
        found = None
        if len(self._recent) >= _LEAST:
            middle = median(self._recent)
            deviation = _TO_SIGMA * median(abs(one - middle) for one in self._recent)
            above = (loss - middle) / (max(deviation, _LEAST_SHARE * abs(middle)) or 1.0)
            found = above if above > _FAR else None
        self._recent.append(loss)
        return found
