"""Asking a server: one connection for each request, tries again where that may help, and streams of events.

Redirects are not followed: the key is for the server that was named.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from tunesmith._version import __version__
from tunesmith.core.log import get_logger
from tunesmith.engines.remote.failures import RETRIED, failure, no_answer, no_protocol

__all__ = ["Cancelled", "Line", "Server"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0
"""Seconds before the second try where the server names none; and the longest wait that it may ask for."""
_CONNECT = 20.0
"""Most seconds until a connection is there."""
_SHOWN = 2_000
"""Characters of an error's body that are looked at."""
_HIDDEN = "********"


class Cancelled(Exception):
    """The request was ended from this side."""


@dataclass(eq=False)
class Line:
    """A request's way to the server, so that another thread can end it."""

    cancelled: threading.Event = field(default_factory=threading.Event)
    _socket: socket.socket | None = None

    def cancel(self) -> None:
        """Idempotent, from any thread. What reads from the server at that moment raises Cancelled."""
        self.cancelled.set()
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def hold(self, found: socket.socket | None) -> None:
        self._socket = found
        if self.cancelled.is_set():
            raise Cancelled


class Server:
    """`url`: the base address, like http://127.0.0.1:8000/v1. `timeout`: seconds of silence. `retries`: tries after
    the first. `key`: of the server; it is in no text that comes from here."""

    def __init__(self, url: str, *, key: str = "", timeout: float = 600, retries: int = 4) -> None:
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        self._host, self._path, self._secure = parts.netloc, parts.path, parts.scheme == "https"
        self._key, self._timeout, self._retries = key, timeout, retries
        self._pause: Callable[[float, Line], None] = _pause

    def get(self, path: str) -> Any:
        """The JSON of an answer. Raises TunesmithError."""
        return self._json("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any], line: Line | None = None) -> Any:
        """The same, for a body of JSON. Raises Cancelled where `line` was."""
        return self._json("POST", path, body, line)

    def events(self, path: str, body: Mapping[str, Any], line: Line) -> Iterator[dict[str, Any]]:
        """The objects of a stream, as they come. Raises TunesmithError, also for an error inside the stream and for
        one that breaks off; Cancelled where `line` was."""
        where = self.url + path
        with self._answer("POST", path, body, line) as answer:
            for data in _data_of(answer):
                if data == "[DONE]":
                    return
                found = self._parsed(data, where)
                if "error" in found:
                    raise failure(_status_of(found["error"]), self._hide(data), where)
                yield found
        self._check(line)
        raise no_protocol(where, "the stream broke off")

    def _check(self, line: Line) -> None:
        if line.cancelled.is_set():
            raise Cancelled

    def _json(self, method: str, path: str, body: Mapping[str, Any] | None, line: Line | None = None) -> Any:
        line = line or Line()
        with self._answer(method, path, body, line) as answer:
            text = answer.read().decode("utf-8", "replace")
            self._check(line)
            return self._parsed(text, self.url + path)

    def _parsed(self, text: str, where: str) -> dict[str, Any]:
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise no_protocol(where, self._hide(text[:_SHOWN]))
        return found

    @contextmanager
    def _answer(
        self, method: str, path: str, body: Mapping[str, Any] | None, line: Line
    ) -> Iterator[http.client.HTTPResponse]:
        """An answer with status 200, after as many tries as it takes."""
        where = self.url + path
        connection: http.client.HTTPConnection | None = None
        answer: http.client.HTTPResponse | None = None
        try:
            for left in range(self._retries, -1, -1):
                connection, answer, wait = self._try(method, path, body, line, left)
                if answer is not None:
                    yield answer
                    return
                connection.close()
                self._pause(_FIRST_PAUSE * 2 ** (self._retries - left) if wait is None else wait, line)
        except (OSError, http.client.HTTPException) as error:
            self._check(line)
            if answer is not None and not isinstance(error, TimeoutError):
                raise no_protocol(where, f"it broke off: {error}") from error
            raise no_answer(where, self._hide(_words(error, self._timeout))) from error
        finally:
            if answer is not None:
                answer.close()
            if connection is not None:
                connection.close()

    def _try(
        self, method: str, path: str, body: Mapping[str, Any] | None, line: Line, left: int
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse | None, float | None]:
        """(connection, answer, seconds to wait): no answer where another try may help. Raises TunesmithError where
        none does, OSError where nobody listens and no try is left."""
        made = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = made(self._host, timeout=min(self._timeout, _CONNECT))
        try:
            connection.connect()
            connection.sock.settimeout(self._timeout)
            line.hold(connection.sock)
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, self._path + path, data, self._headers(data))
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            # An address that is wrong stays so; who does not answer in time would be asked the same once more.
            final = isinstance(error, (socket.gaierror, ssl.SSLError, TimeoutError))
            if final or not left or line.cancelled.is_set():
                raise
            get_logger().info(
                "the server does not answer (%s); asking again, %d tries left", self._hide(str(error)), left
            )
            return connection, None, None
        if answer.status == 200:
            return connection, answer, None
        with answer:
            text = self._hide(answer.read(_SHOWN).decode("utf-8", "replace"))
        wait = _seconds(answer.getheader("Retry-After"))
        if answer.status not in RETRIED or not left or (wait or 0) > _LONGEST_PAUSE:
            connection.close()
            if 300 <= answer.status < 400:
                text = f"it points to {answer.getheader('Location')}, and redirects are not followed"
            raise failure(answer.status, text, self.url + path)
        get_logger().info("the server is busy (status %d); asking again, %d tries left", answer.status, left)
        return connection, None, wait

    def _headers(self, data: bytes | None) -> dict[str, str]:
        headers = {"Accept": "application/json, text/event-stream", "User-Agent": f"tunesmith/{__version__}"}
        if data is not None:
            headers["Content-Type"] = "application/json"
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return headers

    def _hide(self, text: str) -> str:
        """Servers like to say which key was wrong."""
        return text.replace(self._key, _HIDDEN) if self._key else text


def _data_of(answer: http.client.HTTPResponse) -> Iterator[str]:
    """What each event of a stream says. https://html.spec.whatwg.org/multipage/server-sent-events.html"""
    data: list[str] = []
    while line := answer.readline():
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        name, _, value = text.partition(":")
        if name == "data":
            data.append(value.removeprefix(" "))
        elif not text and data:
            yield "\n".join(data)
            data = []
    if data:  # the last line end is forgotten by some
        yield "\n".join(data)


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After, which is a number of seconds or a date."""
    if not retry_after:
        return None
    with suppress(ValueError):
        return max(float(retry_after), 0)
    with suppress(ValueError, TypeError):
        return max(parsedate_to_datetime(retry_after).timestamp() - time.time(), 0)
    return None


def _pause(seconds: float, line: Line) -> None:
    if line.cancelled.wait(seconds):
        raise Cancelled


def _status_of(error: Any) -> int:
    """Of an error inside a stream, which has no status of its own: what its words say."""
    kind = str(error.get("type") or error.get("code")) if isinstance(error, dict) else ""
    return 400 if "invalid" in kind else 429 if "rate" in kind else 500


def _words(error: Exception, timeout: float) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing came for {timeout:g} s"
    return str(error) or type(error).__name__
