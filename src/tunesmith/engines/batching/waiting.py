"""The queue before the engine: fair between clients, with a limit."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from tunesmith.engines.batching.job import Job

__all__ = ["FairQueue"]


class FairQueue:
    """Clients take turns; each client's jobs keep their order. Not safe for several threads by itself."""

    def __init__(self) -> None:
        self._clients: dict[str, deque[Job]] = {}  # in the order of their turns
        self._first: deque[Job] = deque()

    def __len__(self) -> int:
        return len(self._first) + sum(map(len, self._clients.values()))

    def __iter__(self) -> Iterator[Job]:
        yield from self._first
        for jobs in self._clients.values():
            yield from jobs

    def add(self, job: Job) -> None:
        self._clients.setdefault(job.request.client, deque()).append(job)

    def put_back(self, job: Job) -> None:
        """One that ran before: it comes before all others."""
        self._first.appendleft(job)

    def pop(self) -> Job:
        """The next one. Raises IndexError where there is none."""
        if self._first:
            return self._first.popleft()
        client = next(iter(self._clients), None)
        if client is None:
            raise IndexError("an empty queue")
        jobs = self._clients.pop(client)
        job = jobs.popleft()
        if jobs:
            self._clients[client] = jobs  # behind the others
        return job

    def remove_cancelled(self) -> list[Job]:
        gone = [job for job in self if job.cancelled]
        if gone:
            self._first = deque(job for job in self._first if not job.cancelled)
            kept = {client: deque(job for job in jobs if not job.cancelled) for client, jobs in self._clients.items()}
            self._clients = {client: jobs for client, jobs in kept.items() if jobs}
        return gone
