"""Work spread over processes, with the results in order.

The processes are forked, so they begin with everything that the parent holds, and at once; what travels is a piece of
work and its result. Elsewhere than on Linux, forking is not safe, and the work is done in this process.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
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
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(work,))
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


def _begin(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work
    # What came along stays: a collection that looked at it would copy its pages into this process.
    gc.freeze()
    # The threads of the library tokenizers do not come along into a forked process, which would wait for them forever.
    env.override("TOKENIZERS_PARALLELISM", "false")


def _do(piece: Any) -> Any:
    assert _work is not None, "set when the process began"
    return _work(piece)
