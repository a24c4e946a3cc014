"""Replies that are being written: what joins the engine's thread and the server's loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from tunesmith.core.errors import TunesmithError
from tunesmith.engines.base import Handle, Piece, Request, Sink
from tunesmith.serve.errors import ApiError, as_api_error, server_error
from tunesmith.serve.media import spoilt

if TYPE_CHECKING:
    from tunesmith.serve.service import Service

__all__ = ["Running"]

_LATE = -1
"""In place of the number of a reply: the time is over."""


class Running:
    """The replies to one request. `start`, then iterate over `pieces`, then `close`, which cancels what has not ended.

    `start` raises ApiError where the engine does not take them; `pieces` does where one fails, and where all together
    take longer than they may. `ended` is called by `close`.
    """

    def __init__(self, service: Service, requests: Sequence[Request], ended: Callable[[], None]) -> None:
        self._service, self._requests, self._when_ended = service, requests, ended
        self._queue: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
        self._handles: list[Handle] = []
        self._has_slot = self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._began = time.monotonic()

    async def start(self) -> None:
        try:
            self._service.check_open()
            await self._service.slots.take()
            self._has_slot = True
            self._service.running.add(self)
            loop = asyncio.get_running_loop()
            late = self._service.limits.generation_seconds
            self._timer = loop.call_later(late, self._queue.put_nowait, (_LATE, Piece()))
            for index, request in enumerate(self._requests):
                self._handles.append(self._service.engine.submit(request, self._sink(loop, index)))
        except TunesmithError as error:
            self.close()
            raise as_api_error(error) from None
        except BaseException:
            self.close()
            raise

    def _sink(self, loop: asyncio.AbstractEventLoop, index: int) -> Sink:
        def sink(piece: Piece) -> None:
            with suppress(RuntimeError):  # the loop is gone: so is the client
                loop.call_soon_threadsafe(self._queue.put_nowait, (index, piece))

        return sink

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """(number of the reply, piece), as they come."""
        left = len(self._requests)
        last: float | None = None
        while left:
            index, piece = await self._queue.get()
            if index == _LATE:
                raise server_error("the answer took longer than it may", 504, "timeout")
            if piece.text:
                last = self._clock(last)
            if piece.end:
                left -= 1
                self._ended(piece)
            yield index, piece

    def _clock(self, last: float | None) -> float:
        now = time.monotonic()
        if last is None:
            self._service.metrics.observe("first_text_seconds", now - self._began)
        else:
            self._service.metrics.observe("next_text_seconds", now - last)
        return now

    def _ended(self, piece: Piece) -> None:
        end, metrics = piece.end, self._service.metrics
        assert end is not None
        metrics.count("prompt_tokens_total", end.prompt_tokens)
        metrics.count("cached_tokens_total", end.cached_tokens)
        metrics.count("completion_tokens_total", end.completion_tokens)
        metrics.count("replies_total", reason=end.finish_reason)
        if end.finish_reason == "error":
            raise _as_api_error(end.error) if end.error else server_error("the engine has failed")
        if end.finish_reason == "cancelled":
            raise ApiError(503, "the server is being stopped", kind="server_error", code="stopping")

    def close(self) -> None:
        """Cancel what has not ended. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._timer:
            self._timer.cancel()
        for handle in self._handles:
            handle.cancel()
        self._when_ended()
        self._service.running.discard(self)
        if self._has_slot:
            self._service.slots.give_back()


def _as_api_error(error: TunesmithError) -> ApiError:
    """A medium that cannot be read is told with its place in the request, which the engine has been given."""
    place = (error.problems[0].where or "").partition(": ")[0]
    return spoilt(error, place) if place.startswith("messages[") else as_api_error(error)
