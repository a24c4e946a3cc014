"""Media that were decoded a moment ago: a picture that stands twice in a batch is decoded once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from tunesmith.core.types import Medium
from tunesmith.media.files import State, states_of

__all__ = ["Bounded"]


class Bounded:
    """Keeps what was read last, `most_bytes` of it. What it hands out is shared: arrays can only be read, and nobody
    may change a picture. A file that was touched since is read again, so that what is wrong with it is seen however
    long ago a process has begun. In another process it begins empty."""

    def __init__(self, most_bytes: int = 256_000_000) -> None:
        self.most_bytes, self.bytes = most_bytes, 0
        self._kept: OrderedDict[tuple[str, Any, str], tuple[Any, int, list[State]]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, medium: Medium, read: Callable[[Medium], Any]) -> Any:
        """What `read` makes of a settled medium; it always is asked in the same way."""
        assert medium.facts is not None, "not settled"
        key, states = (medium.kind, medium.source, medium.facts.digest), states_of(medium.source)
        with self._lock:
            if key in self._kept and self._kept[key][2] == states:
                self._kept.move_to_end(key)
                return self._kept[key][0]
            if key in self._kept:
                self.bytes -= self._kept.pop(key)[1]
        found = read(medium)
        size = _bytes_of(found)
        with self._lock:
            if key not in self._kept and size <= self.most_bytes:
                self._kept[key] = (found, size, states)
                self.bytes += size
            while self.bytes > self.most_bytes:
                self.bytes -= self._kept.popitem(last=False)[1][1]
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return Bounded, (self.most_bytes,)


def _bytes_of(found: Any) -> int:
    """Of an array, a picture in RGB, or a tuple that begins with one."""
    if isinstance(found, tuple):
        return _bytes_of(found[0])
    if isinstance(found, np.ndarray):
        found.setflags(write=False)
        return found.nbytes
    return 3 * int(found.width) * int(found.height)
