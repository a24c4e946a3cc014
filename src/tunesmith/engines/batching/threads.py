"""Threads that OpenMP keeps for the thread that computed last.

Each thread that computes has a team of its own. Where all teams together have more threads than the machine has cores,
libgomp lets them sleep between two computations instead of waiting awake, and waking them costs tens of microseconds,
some hundred times in a forward: 15 to 25 % of the tokens a second on two cores. So the thread that loaded a model gives
its team back before another one computes with it; it gets a new one where it computes again.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache
from pathlib import Path

__all__ = ["give_back_threads"]

_SOFT = 1  # omp_pause_soft, OpenMP 5.0, section 6.15: what the program has set stays


def give_back_threads() -> bool:
    """Whether the team of the calling thread, if it had one, has ended. False where torch has no libgomp."""
    library = _libgomp()
    return library is not None and library.omp_pause_resource_all(_SOFT) == 0


@cache
def _libgomp() -> ctypes.CDLL | None:
    """The one that torch computes with: other packages bring others."""
    import torch

    folder = Path(torch.__file__).parent
    for path in [*folder.glob("lib/libgomp*"), *folder.parent.glob("torch.libs/libgomp*")]:
        with suppress(OSError, AttributeError):
            library = ctypes.CDLL(str(path))
            library.omp_pause_resource_all.restype = ctypes.c_int
            return library
    return None
