"""How many requests the engine has at once, where MAX_CONCURRENT says so."""

from __future__ import annotations

import asyncio
from collections import deque

from tunesmith.serve.errors import ApiError

__all__ = ["Slots"]


class Slots:
    """`most` None: as many as the engine takes. Others wait in the order of their coming, up to `queue` of them."""

    def __init__(self, most: int | None, queue: int) -> None:
        self._most, self._queue = most, queue
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def take(self) -> None:
        """Raises ApiError (429) where too many wait."""
        if self._most is None:
            return
        if self._taken < self._most:
            self._taken += 1
            return
        if len(self._waiting) >= self._queue:
            message = f"{len(self._waiting)} requests are waiting already; ask again later"
            raise ApiError(
                429, message, kind="rate_limit_error", code="rate_limit_exceeded", headers={"Retry-After": "1"}
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was given the slot in the same moment
                self.give_back()
            else:
                self._waiting.remove(turn)
            raise

    def give_back(self) -> None:
        if self._most is None:
            return
        if self._waiting:
            self._waiting.popleft().set_result(None)
        else:
            self._taken -= 1
