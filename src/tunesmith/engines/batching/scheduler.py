"""Whose turn it is: one thread that owns the model takes requests from the queue and makes steps of all that run.

A request joins and leaves between two steps. Where memory ends, the youngest go back to the queue and are read again
later, with what they have written; where a step fails, its requests are tried one by one, and only those that fail by
themselves end. What a request sees and hears is read by other threads when its turn has come, and it runs when that is
done.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import torch
from torch import Tensor

from tunesmith.core.errors import Problem, TunesmithError, UnavailableError
from tunesmith.core.log import get_logger
from tunesmith.engines.base import Overloaded, Token
from tunesmith.engines.batching.failures import Failure, failure_of, no_memory, not_finite
from tunesmith.engines.batching.job import Job
from tunesmith.engines.batching.runners import Runner
from tunesmith.engines.batching.sight import Readers, Sight
from tunesmith.engines.batching.threads import Mode, eagerly, give_back_threads
from tunesmith.engines.batching.waiting import FairQueue
from tunesmith.models.out_of_memory import free_memory

__all__ = ["Scheduler"]

T = TypeVar("T")


class Scheduler:
    """`at_once`: most requests that run; `most_waiting`: most that wait. `mode`: of torch, in which all is computed."""

    def __init__(
        self,
        runner: Runner,
        device: torch.device,
        at_once: int,
        most_waiting: int,
        model: str,
        mode: Mode = torch.inference_mode,
        readers: Readers | None = None,
    ) -> None:
        self._mode, self._readers = mode, readers
        self._runner, self._device, self._model = runner, device, model
        self._at_once, self._most_waiting = at_once, most_waiting
        self._waiting, self._running = FairQueue[Job](), list[Job]()
        self._reading: dict[Job, Future[Sight]] = {}
        self._tasks: deque[Callable[[], None]] = deque()
        self._counts: Counter[str] = Counter()
        self._seconds = 1.0  # that a request takes, a moving mean
        self._limit = at_once
        """How many memory has room for, as it seems: those that run when it ends, and one more with each that ends."""
        self._closed = False
        self._wake = threading.Condition()
        self._threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._work, name="tunesmith-engine", daemon=True)
        give_back_threads()  # of the one that loaded the model
        self._thread.start()

    # ---- from any thread ----

    def submit(self, job: Job) -> None:
        """Raises Overloaded where the queue is full."""
        with self._wake:
            self._refuse_closed()
            if (waiting := len(self._waiting)) >= self._most_waiting:
                self._counts["refused"] += 1
                raise Overloaded(waiting, max(1.0, self._seconds * waiting / self._at_once))
            self._waiting.add(job)
            self._wake.notify()

    def call(self, task: Callable[[], T]) -> T:
        """Run something in the engine's thread, between two steps, and give or raise what it does."""
        future: Future[T] = Future()
        with self._wake:
            self._refuse_closed()
            self._tasks.append(lambda: _settle(future, task))
            self._wake.notify()
        return future.result()

    def stats(self) -> dict[str, float]:
        with self._wake:
            waiting = len(self._waiting) + len(self._reading)
            now = {"running": len(self._running), "waiting": waiting, "at_once": self._at_once}
            return {**now, **self._runner.stats(), **self._counts}

    def end_adapter(self, name: str) -> None:
        """In the engine's thread: requests of an adapter that goes end with an error."""
        problem = Problem("E-ENGINE-006", "the adapter was unloaded while this request used it", got=name)
        with self._wake:
            waiting = [job for job in self._waiting if job.request.adapter == name]
            for job in waiting:
                job.cancelled = True
            self._waiting.remove_cancelled()
        waiting += self._stop_reading(lambda job: job.request.adapter == name)
        for job in waiting + [job for job in self._running if job.request.adapter == name]:
            self._fail(job, UnavailableError(problem))
        self._count(waiting)
        self._leave()
        self._runner.forget(name)

    def close(self) -> None:
        with self._wake:
            self._closed = True
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise UnavailableError(Problem("E-ENGINE-005", "the engine is closed"))

    # ---- the engine's thread ----

    def _work(self) -> None:
        torch.set_num_threads(self._threads)  # a thread has a number of its own
        # A model that was compiled for training is run as it is written: what a step hands on changes each time.
        with self._mode(), eagerly():
            while self._wait():
                try:
                    self._round()
                except Exception as error:
                    self._broken(failure_of(error).problem)
        waiting = [*self._waiting, *self._stop_reading(lambda _: True)]
        for job in [*self._running, *waiting]:
            job.end("cancelled")
        self._leave()
        self._count(waiting)
        for task in self._tasks:
            task()

    def _broken(self, problem: TunesmithError) -> None:
        """A mistake of the engine itself: nothing is sure any more, so it closes, and nobody waits for ever."""
        get_logger().error("the engine closes")
        with self._wake:
            self._closed = True
        for job in [*self._running, *self._waiting, *self._stop_reading(lambda _: True)]:
            job.end("error", error=problem)
            job.tell_end()
        self._running.clear()

    def _wait(self) -> bool:
        """Until there is something to do; False: the engine closes."""
        with self._wake:
            while not (self._closed or self._tasks or self._running or self._has_next()):
                self._wake.wait()
            return not self._closed

    @property
    def _has_room(self) -> bool:
        return len(self._running) + len(self._reading) < min(self._at_once, self._limit)

    def _has_next(self) -> bool:
        """Whether one that waits can begin, or one that is read can go on."""
        return (self._has_room and len(self._waiting) > 0) or any(future.done() for future in self._reading.values())

    def _round(self) -> None:
        """One task, and one step of all that run."""
        if self._tasks:
            self._tasks.popleft()()
        with self._wake:
            gone = self._waiting.remove_cancelled()
        gone += self._stop_reading(lambda job: job.cancelled)
        for job in [*gone, *(job for job in self._running if job.cancelled)]:
            job.end("cancelled")
        self._count(gone)
        self._leave()
        self._admit()
        self._make_ready()
        if self._running:
            self._step(self._running)
            self._leave()

    def _admit(self) -> None:
        for job in [job for job, future in self._reading.items() if future.done()]:
            self._take_in(job, self._reading.pop(job))
        while self._has_room:
            with self._wake:
                if not len(self._waiting):
                    return
                job = self._waiting.pop()
            if job.request.media and job.sight is None:
                assert self._readers is not None, "refused where nobody reads"
                self._reading[job] = self._readers.begin(job.request, self._notify)
            else:
                self._begin(job)

    def _begin(self, job: Job) -> None:
        if self._runner.begin(job):
            self._running.append(job)
        elif self._running:
            self._limit = len(self._running)
            self._put_back(job)
        else:
            self._fail(job, no_memory())
            self._count([job])

    def _take_in(self, job: Job, future: Future[Sight]) -> None:
        """One whose media are read, or cannot be."""
        try:
            job.sight = future.result()
        except Exception as error:
            self._fail(job, failure_of(error).problem)
            self._count([job])
        else:
            self._begin(job)

    def _stop_reading(self, which: Callable[[Job], bool]) -> list[Job]:
        found = [job for job in self._reading if which(job)]
        for job in found:
            self._reading.pop(job).cancel()
        return found

    def _notify(self) -> None:
        with self._wake:
            self._wake.notify()

    def _put_back(self, job: Job) -> None:
        with self._wake:
            self._waiting.put_back(job)

    def _make_ready(self) -> None:
        """Room for one more token of each; the youngest make way."""
        for job in list(self._running):
            while job in self._running and not self._runner.ready(job, self._running):
                if len(self._running) == 1:
                    self._fail(job, no_memory())
                    self._leave()
                else:
                    self._send_back(self._running[-1])
                    self._limit = len(self._running)

    def _send_back(self, job: Job) -> None:
        self._running.remove(job)
        self._runner.drop(job, keep=False)
        self._counts["sent_back"] += 1
        self._put_back(job)

    def _step(self, jobs: Sequence[Job]) -> None:
        try:
            read, scores = self._runner.step(jobs)
        except Exception as error:
            failure = failure_of(error)
        else:
            self._counts["steps"] += 1
            self._choose(read, scores)
            return
        self._recover(list(jobs), failure)

    def _recover(self, jobs: list[Job], error: Failure) -> None:
        """After a step that failed. The exception is gone by now: its frames hold tensors."""
        if error.memory:
            free_memory(self._device)
            if len(jobs) > 1:
                self._at_once = len(jobs) // 2
                get_logger().warning("memory ran out: %d requests at once from now on", self._at_once)
                for job in reversed(jobs[self._at_once :]):
                    self._send_back(job)
                return
        elif len(jobs) > 1:
            self._one_by_one(jobs)
            return
        self._fail(jobs[0], error.problem)

    def _one_by_one(self, jobs: list[Job]) -> None:
        """Each is read again and makes a step by itself."""
        for job in jobs:
            self._runner.drop(job, keep=False)
        for job in jobs:
            count = job.count
            if not self._runner.begin(job):
                self._running.remove(job)
                self._put_back(job)
            while not job.ended and job.held is not None and job.count == count and self._runner.ready(job, [job]):
                self._step([job])

    def _choose(self, jobs: list[Job], scores: Tensor) -> None:
        """scores [n, V] in float32"""
        if not jobs:
            return
        best, ids = scores.max(dim=-1)
        for job, row, good, token in zip(jobs, scores, best.isfinite().tolist(), ids.tolist(), strict=True):
            try:
                self._choose_one(job, row, good, token)
            except Exception as error:
                self._fail(job, failure_of(error).problem)

    def _choose_one(self, job: Job, row: Tensor, finite: bool, likeliest: int) -> None:
        if not finite:
            raise not_finite(self._model)
        self._counts["generated_tokens"] += 1
        if job.chooser.plain:
            job.chooser.accept(likeliest)
            job.take(Token(likeliest))
        else:
            job.take(job.chooser.choose(row))

    def _fail(self, job: Job, error: TunesmithError) -> None:
        job.end("error", error=error)

    def _leave(self) -> None:
        """Those that have ended."""
        gone = [job for job in self._running if job.ended]
        if not gone:
            return
        self._running = [job for job in self._running if not job.ended]
        self._limit = min(self._at_once, self._limit + len(gone))
        for job in gone:
            self._runner.drop(job, keep=job.reason != "error")
            self._seconds += 0.2 * (time.perf_counter() - job.began - self._seconds)
        self._count(gone)

    def _count(self, gone: Sequence[Job]) -> None:
        """The last that happens to them: who has the end of a reply finds everything as it is after it."""
        for job in gone:
            self._counts[f"ended_{job.reason}"] += 1
            self._counts["prompt_tokens"] += len(job.request.prompt)
            self._counts["cached_tokens"] += job.cached
        for job in gone:
            job.tell_end()


def _settle(future: Future[Any], task: Callable[[], Any]) -> None:
    try:
        future.set_result(task())
    except BaseException as error:
        future.set_exception(error)
