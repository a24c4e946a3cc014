"""Work spread over processes, with the results in order.

The processes are forked, so they begin with everything that the parent holds, and at once; what travels is a piece of
work and its result. Elsewhere than on Linux, forking is not safe, and the work is done in this process.

A process of these never outlives its parent, however that ends, and leaves it to the parent what a signal means.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from tunesmith.core import env
from tunesmith.core.errors import MachineError, Problem

__all__ = ["available_workers", "map_in_order"]

Piece = TypeVar("Piece")
Result = TypeVar("Result")

_AHEAD = 3  # pieces per process that are read before their results are needed
_LOOK_EVERY = 0.5  # seconds between looks whether the parent is there
_GRACE = 5.0  # seconds that the parent has to end a process which the system asked to go
_work: Callable[[Any], Any] | None = None


def available_workers() -> int:
    """How many processes pay: one per core that this process may use; 0 where there is one core, or no safe fork."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if cores > 1 and sys.platform == "linux" else 0


def map_in_order(
    work: Callable[[Piece], Result], pieces: Iterable[Piece], workers: int, *, ahead: int = 0
) -> Generator[Result, None, None]:
    """`work(piece)` for every piece, in order. With `workers` 0, in this process. `ahead`: so many pieces are begun
    before their results are asked for, if that is more than a few for each process.

    An error of `work` is raised here, and ends everything. A process that dies (out of memory) is a MachineError.
    """
    if not workers or sys.platform != "linux":
        yield from map(work, pieces)
        return
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(work, os.getpid()))
    waiting: deque[Future[Result]] = deque()
    try:
        for piece in pieces:
            waiting.append(pool.submit(_do, piece))
            if len(waiting) > max(ahead, workers * _AHEAD):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        fix = "fewer processes (preprocessing_num_workers: 1), or smaller batches (preprocessing_batch_size: 200)"
        what = "a process that prepares data was stopped from outside, mostly because memory ran out"
        raise MachineError(Problem("E-DATA-110", what, fix=fix)) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _begin(work: Callable[[Any], Any], parent: int) -> None:
    global _work
    _work = work
    # What came along stays: a collection that looked at it would copy its pages into this process.
    gc.freeze()
    # The threads of the library tokenizers do not come along into a forked process, which would wait for them forever.
    env.override("TOKENIZERS_PARALLELISM", "false")
    _stand_by(parent)


def _stand_by(parent: int) -> None:
    """Go when the parent goes. A group of its own keeps Ctrl-C at the terminal away; who asks all processes of a job to
    end reaches this one too, and gives the parent time to use what is under way."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    asked: list[float] = []
    signal.signal(signal.SIGTERM, lambda _number, _frame: asked.append(time.monotonic()))

    def watch() -> None:
        while os.getppid() == parent and not (asked and time.monotonic() - asked[0] > _GRACE):
            time.sleep(_LOOK_EVERY)
        # At once, in whatever library the work is. What came along, such as a lock of the parent's, goes as well.
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _do(piece: Any) -> Any:
    assert _work is not None, "set when the process began"
    return _work(piece)
