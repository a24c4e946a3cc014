"""How a process of several ends."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from contextlib import suppress

__all__ = ["ended_by"]


def ended_by(run: Callable[[], int]) -> int:
    """The exit code that `run` returns, and with which this process is going to end.

    Where the process is connected to others of its run by then, it ends after all that is registered to be done at the
    end, and Python is not taken apart. Threads of Gloo hold tensors for a moment longer than the call they were made
    for: one that lets go while Python is being taken apart aborts the process, and a run that has succeeded looks like
    one that failed. No call ends these threads for sure (https://github.com/pytorch/pytorch/issues/190489).
    """
    code: int | None = None

    def last() -> None:
        distributed = sys.modules.get("torch.distributed")
        if code is None or distributed is None or not distributed.is_available() or not distributed.is_initialized():
            return
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # the terminal was closed
                stream.flush()
        os._exit(code)

    atexit.register(last)  # before all others, so it is called after them
    code = run()
    return code
