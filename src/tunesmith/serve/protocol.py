"""Connections that do not say what they want: uvicorn waits for the headers of a request as long as bytes come."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["protocol"]


def protocol(seconds: float) -> type[H11Protocol]:
    """uvicorn's protocol, with a limit for the headers of each request."""

    class Timely(H11Protocol):
        waits: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.wait()

        def data_received(self, data: bytes) -> None:
            if self.waits is None and self.between_requests():
                self.wait()
            super().data_received(data)
            if not self.between_requests():
                self.forget()

        def connection_lost(self, exc: Exception | None) -> None:
            self.forget()
            super().connection_lost(exc)

        def between_requests(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def wait(self) -> None:
            self.waits = self.loop.call_later(seconds, self.transport.close)

        def forget(self) -> None:
            if self.waits is not None:
                self.waits.cancel()
                self.waits = None

    return Timely
