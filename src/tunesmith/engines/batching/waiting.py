"""The queue before the engine: fair between clients, with a limit."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

__all__ = ["FairQueue", "Waiting"]


class Waiting(Protocol):
    """What waits: whose it is, and whether anybody still wants it."""

    @property
    def client(self) -> str: ...

    @property
    def cancelled(self) -> bool: ...


W = TypeVar("W", bound=Waiting)


class FairQueue(Generic[W]):
    """Clients take turns; what each has waiting keeps its order. Not safe for several threads by itself."""

    def __init__(self) -> None:
        self._clients: dict[str, deque[W]] = {}  # in the order of their turns
        self._first: deque[W] = deque()

    def __len__(self) -> int:
        return len(self._first) + sum(map(len, self._clients.values()))

    def __iter__(self) -> Iterator[W]:
        yield from self._first
        for own in self._clients.values():
            yield from own

    def add(self, one: W) -> None:
        self._clients.setdefault(one.client, deque()).append(one)

    def put_back(self, one: W) -> None:
        """One that was taken before: it comes before all others."""
        self._first.appendleft(one)

    def pop(self) -> W:
        """The next one. Raises IndexError where there is none."""
        if self._first:
            return self._first.popleft()
        client = next(iter(self._clients), None)
        if client is None:
            raise IndexError("an empty queue")
        own = self._clients.pop(client)
        one = own.popleft()
        if own:
            self._clients[client] = own  # behind the others
        return one

    def remove_cancelled(self) -> list[W]:
        gone = [one for one in self if one.cancelled]
        if gone:
            self._first = deque(one for one in self._first if not one.cancelled)
            kept = {client: deque(one for one in own if not one.cancelled) for client, own in self._clients.items()}
            self._clients = {client: own for client, own in kept.items() if own}
        return gone
