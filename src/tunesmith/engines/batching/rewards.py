"""Rewards of sequences that several clients ask for: one thread owns the model, and each forward reads what waits.

A request joins with as many of its sequences as there is room for, and clients take turns. A forward that fails is made
again for each sequence by itself, so that only those that fail alone end; where memory runs out, in halves.

K sequences of a forward.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from math import isfinite
from typing import TypeAlias

import torch
from torch import Tensor

from tunesmith.core.errors import Problem, TunesmithError, UnavailableError
from tunesmith.engines.base import Overloaded
from tunesmith.engines.batching.failures import Failure, failure_of, no_memory, not_finite
from tunesmith.engines.batching.threads import eagerly, give_back_threads
from tunesmith.engines.batching.waiting import FairQueue
from tunesmith.models.out_of_memory import free_memory

__all__ = ["Limits", "RewardScheduler"]

Ids: TypeAlias = Sequence[int]
Forward: TypeAlias = Callable[[Sequence[Ids]], Tensor]
"""K sequences of ids -> their rewards [K]."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a forward: most `sequences`, and most `tokens` (or one sequence); with `padded`, padding counts too.
    `waiting`: most requests that wait."""

    sequences: int
    tokens: int
    waiting: int
    padded: bool


@dataclass(eq=False, slots=True)
class _Asked:
    """One request on its way. Its future may be cancelled at any time, and then nothing more of it is read."""

    client: str
    rewards: list[float]
    left: int
    future: Future[list[float]] = field(default_factory=Future)

    @property
    def ended(self) -> bool:
        return self.future.done()

    def put(self, number: int, reward: float) -> None:
        self.rewards[number] = reward
        self.left -= 1
        if not self.left and self.future.set_running_or_notify_cancel():
            self.future.set_result(self.rewards)

    def fail(self, error: TunesmithError) -> None:
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


@dataclass(eq=False, slots=True)
class _Sequence:
    """One sequence of a request."""

    ids: Ids
    number: int
    asked: _Asked

    @property
    def client(self) -> str:
        return self.asked.client

    @property
    def cancelled(self) -> bool:
        return self.asked.ended


class RewardScheduler:
    """`name`: of the model, for errors."""

    def __init__(self, forward: Forward, device: torch.device, limits: Limits, name: str) -> None:
        self._forward, self._device, self._limits, self._name = forward, device, limits, name
        self._queue = FairQueue[_Sequence]()
        self._open: set[_Asked] = set()
        """Requests of which sequences wait, or are read."""
        self._running = 0
        self._counts: Counter[str] = Counter()
        self._closed = False
        self._wake = threading.Condition()
        self._threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._work, name="tunesmith-rewards", daemon=True)
        give_back_threads()  # of the one that loaded the model
        self._thread.start()

    # ---- from any thread ----

    def submit(self, sequences: Sequence[Ids], client: str) -> Future[list[float]]:
        """The rewards in their order, some time. Raises Overloaded where too many requests wait."""
        asked = _Asked(client, [0.0] * len(sequences), len(sequences))
        if not sequences:
            asked.future.set_result([])
            return asked.future
        with self._wake:
            if self._closed:
                raise _closed()
            self._forget_ended()
            if (waiting := len(self._open)) >= self._limits.waiting + self._limits.sequences:
                self._counts["refused"] += 1
                raise Overloaded(waiting, 1.0)
            self._open.add(asked)
            for number, ids in enumerate(sequences):
                self._queue.add(_Sequence(ids, number, asked))
            self._wake.notify()
        return asked.future

    def stats(self) -> dict[str, float]:
        with self._wake:
            now = {"running": self._running, "waiting": len(self._queue), "at_once": self._limits.sequences}
            return {**now, **self._counts}

    def close(self) -> None:
        """What has not been read ends with an error."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # ---- the engine's thread ----

    def _work(self) -> None:
        torch.set_num_threads(self._threads)  # a thread has a number of its own
        try:
            with torch.inference_mode(), eagerly():
                while batch := self._next():
                    self._read(batch)
        finally:
            with self._wake:
                self._closed = True
            for asked in self._open:
                asked.fail(_closed())

    def _next(self) -> list[_Sequence]:
        """What the next forward reads; nothing: the engine closes."""
        with self._wake:
            self._running = 0
            while not self._closed:
                if batch := self._take():
                    self._running = len(batch)
                    return batch
                self._forget_ended()
                self._wake.wait()
            return []

    def _take(self) -> list[_Sequence]:
        """As much of what waits as a forward may have; what nobody wants any more goes."""
        batch: list[_Sequence] = []
        width = total = 0
        while len(self._queue) and len(batch) < self._limits.sequences:
            one = self._queue.pop()
            if one.cancelled:
                continue
            width, total = max(width, len(one.ids)), total + len(one.ids)
            if batch and (width * (len(batch) + 1) if self._limits.padded else total) > self._limits.tokens:
                self._queue.put_back(one)
                break
            batch.append(one)
        return batch

    def _forget_ended(self) -> None:
        self._open = {asked for asked in self._open if not asked.ended}

    def _read(self, batch: Sequence[_Sequence]) -> None:
        try:
            rewards: list[float] = self._forward([one.ids for one in batch]).tolist()
        except Exception as error:
            failure = failure_of(error)
        else:
            self._counts["steps"] += 1
            self._counts["sequences"] += len(batch)
            self._counts["tokens"] += sum(len(one.ids) for one in batch)
            for one, reward in zip(batch, rewards, strict=True):
                self._put(one, reward)
            return
        self._recover(batch, failure)  # the exception is gone by now: its frames hold tensors

    def _put(self, one: _Sequence, reward: float) -> None:
        if one.asked.ended:
            return
        if isfinite(reward):
            one.asked.put(one.number, reward)
        else:
            one.asked.fail(not_finite(self._name, "there is no reward"))

    def _recover(self, batch: Sequence[_Sequence], failure: Failure) -> None:
        if failure.memory:
            free_memory(self._device)
        if len(batch) == 1:
            batch[0].asked.fail(no_memory("shorten the text") if failure.memory else failure.problem)
            return
        size = (len(batch) + 1) // 2 if failure.memory else 1
        for begin in range(0, len(batch), size):
            self._read(batch[begin : begin + size])


def _closed() -> UnavailableError:
    return UnavailableError(Problem("E-ENGINE-005", "the engine is closed"))
