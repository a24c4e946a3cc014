"""What threads that compute share: teams of OpenMP, and whether torch compiles.

Each thread that computes has a team of its own. Where all teams together have more threads than the machine has cores,
libgomp lets them sleep between two computations instead of waiting awake, and waking them costs tens of microseconds,
some hundred times in a forward: 15 to 25 % of the tokens a second on two cores. So the thread that loaded a model gives
its team back before another one computes with it; it gets a new one where it computes again.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

__all__ = ["Mode", "eagerly", "give_back_threads"]

Mode: TypeAlias = Callable[[], AbstractContextManager[Any]]
"""`torch.inference_mode` or `torch.no_grad`."""

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


_lock = threading.Lock()
_within = 0
_stance = ExitStack()


@contextmanager
def eagerly() -> Iterator[None]:
    """Nothing is compiled within. The stance of torch's compiler is that of the process: engines that live at the same
    time and end in any order share it, and the last one gives it back."""
    global _within
    import torch

    with _lock:
        _within += 1
        if _within == 1:
            _stance.enter_context(torch.compiler.set_stance("force_eager"))
    try:
        yield
    finally:
        with _lock:
            _within -= 1
            if _within == 0:
                _stance.close()
