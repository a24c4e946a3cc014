"""Answers that end when the client does: a stream of events, or one object that takes long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse

from tunesmith.serve.errors import ApiError, bug
from tunesmith.serve.responses import DONE, event
from tunesmith.serve.running import Running

if TYPE_CHECKING:
    from tunesmith.engines.base import Request as EngineRequest
    from tunesmith.serve.service import Service

__all__ = ["ClientGone", "answer", "while_connected"]

T = TypeVar("T")


class Made(Protocol):
    """A client's request in the engine's terms."""

    service: Service
    requests: list[EngineRequest]
    wishes: Any
    """What was asked for; `stream` says how it is answered."""

    def close(self) -> None:
        """It is answered, or will not be."""


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


async def _left(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. Raises ClientGone, with `work` cancelled, where the client leaves before."""
    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(_left(request.receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return await task
    finally:
        for one in (task, watch):
            one.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def answer(
    http: Request,
    made: Made,
    whole: Callable[[Running, Any], Coroutine[Any, Any, dict[str, Any]]],
    events: Callable[[Running, Any], AsyncIterator[str]],
) -> Any:
    """The replies to what `made` asks of the engine: one object, or a stream. Both end where the client leaves."""
    running = Running(made.service, made.requests, made.close)
    try:
        if not made.wishes.stream:
            return JSONResponse(await while_connected(http, whole(running, made)))
        await while_connected(http, running.start())
    except BaseException:
        running.close()  # also where nothing of it has begun
        raise
    return EventStream(running, events(running, made))


class EventStream:
    """An ASGI response of server-sent events. What goes wrong once it has begun is an event of its own, and the last
    one: the official client raises it."""

    def __init__(self, running: Running, events: AsyncIterator[str]) -> None:
        self._running, self._events = running, events

    async def __call__(self, scope: MutableMapping[str, Any], receive: Callable[[], Awaitable[Any]], send: Any) -> None:
        writing = asyncio.ensure_future(self._write(send, scope["request_id"]))
        watching = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({writing, watching}, return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                await writing
        finally:
            self._running.close()
            for one in (writing, watching):
                one.cancel()
            await asyncio.gather(writing, watching, return_exceptions=True)

    async def _write(self, send: Any, request_id: str) -> None:
        headers = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-cache",
            "x-accel-buffering": "no",  # a proxy that collects would make a stream pointless
        }
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        with suppress(OSError):  # the client left
            try:
                async for text in self._events:
                    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
                last = DONE
            except ApiError as error:
                last = event(error.body())
            except Exception as error:
                last = event(bug(error, request_id).body())
            await send({"type": "http.response.body", "body": last.encode(), "more_body": False})
