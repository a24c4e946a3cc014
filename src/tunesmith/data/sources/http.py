"""Files at http addresses with the standard library: what is told of them, and their bytes, whole or in parts."""

from __future__ import annotations

import io
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from typing import Any, BinaryIO, TypeVar, cast

from tunesmith._version import __version__
from tunesmith.core.errors import MissingInputError, Problem, UnavailableError
from tunesmith.data.sources.decode import BLOCK

__all__ = ["info", "open_address"]

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds without a byte after which a server counts as silent."""
RETRIES = 4
"""How often in a row an answer that breaks off is asked for again. Who streams a file for hours, a window at a time,
will find that the server has closed the connection meanwhile."""
PAUSE = 0.5
"""Seconds before the first of them; each later one waits twice as long."""


def info(url: str) -> dict[str, Any]:
    """{"size", "version", "parts"}: bytes and what changes when the file does (None: not told), and whether parts can
    be asked for. Raises what `_asked` raises."""
    with _asked(url, "HEAD") as answer:
        length = answer.headers.get("Content-Length")
        told = [answer.headers.get(name) for name in ("ETag", "Last-Modified")]
        parts = answer.headers.get("Accept-Ranges", "").lower() == "bytes"
    version = "|".join(map(str, [*told, length])) if any(told) else None
    return {"size": int(length) if length else None, "version": version, "parts": parts}


def open_address(url: str) -> BinaryIO:
    """The bytes at an address, which can be skipped through where the server gives parts."""
    found = info(url)
    return cast(BinaryIO, io.BufferedReader(_Stream(url, found["size"], found["parts"]), BLOCK))


def _asked(url: str, method: str = "GET", start: int = 0) -> HTTPResponse:
    """Raises MissingInputError (E-DATA-020) where the server knows no such file, else UnavailableError (E-DATA-040)."""
    headers = {"User-Agent": f"tunesmith/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, method=method, headers=headers)
    return _told(url, lambda: cast(HTTPResponse, urllib.request.urlopen(request, timeout=PATIENCE)))


def _told(url: str, work: Callable[[], T]) -> T:
    """`work` with the errors of the network as problems."""
    try:
        return work()
    except urllib.error.HTTPError as error:
        error.close()
        got = f"{error.code} {error.reason}"
        if error.code in (404, 410):
            raise MissingInputError(Problem("E-DATA-020", "there is no such file", where=url, got=got)) from error
        fix = "the address needs a login: get the file by hand" if error.code in (401, 403) else "try again later"
        raise UnavailableError(Problem("E-DATA-040", "the server does not give the file", url, got, fix)) from error
    except (OSError, HTTPException, ValueError) as error:
        got = str(getattr(error, "reason", None) or error) or type(error).__name__
        fix = "check the address and the network"
        raise UnavailableError(Problem("E-DATA-040", "the server cannot be reached", url, got, fix)) from error


class _Stream(io.RawIOBase):
    """An answer being read. `size`: how long it is, if that was told; with `parts` it can be asked for again from any
    place up to there."""

    def __init__(self, url: str, size: int | None, parts: bool) -> None:
        super().__init__()
        self._url, self._size, self._parts = url, size, parts and size is not None
        self._position = 0
        self._answer: HTTPResponse | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._parts

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if not self._parts:
            raise io.UnsupportedOperation("the server gives no parts")
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size or 0}[whence]
        if (target := max(0, base + offset)) != self._position:
            self._forget()
            self._position = target
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._size is not None and self._position >= self._size:
            return 0
        data = self._read(len(buffer))
        self._position += len(data)
        buffer[: len(data)] = data
        return len(data)

    def _read(self, most: int) -> bytes:
        """The next bytes. An answer that breaks off is asked for again from there, if the server gives parts."""
        tries = 1 + RETRIES if self._parts else 1
        for left in reversed(range(tries)):
            try:
                if self._answer is None:
                    self._answer = _asked(self._url, start=self._position)
                answer = self._answer
                data = _told(self._url, lambda: answer.read(most))  # noqa: B023 - called at once
                if data or self._size is None:
                    return data
                what = f"the file ends after {self._position:,} of {self._size:,} bytes"
                raise UnavailableError(Problem("E-DATA-040", what, where=self._url, fix="try again"))
            except UnavailableError:
                self._forget()
                if not left:
                    raise
                time.sleep(PAUSE * 2 ** (tries - 1 - left))
        raise AssertionError("the last try returns or raises")

    def close(self) -> None:
        self._forget()
        super().close()

    def _forget(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None
