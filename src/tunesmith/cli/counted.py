"""How fast an answer came."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator

__all__ = ["Counted"]


class Counted:
    """Iterates over the pieces of an answer and takes the time. The generator returns how many tokens they are, or
    None where nobody knows (a server that does not tell, an answer that was stopped)."""

    def __init__(self, source: Generator[str, None, int | None]) -> None:
        self._source = source
        self._began = self._ended = time.perf_counter()
        self._first: float | None = None
        self._tokens: int | None = None

    def __iter__(self) -> Iterator[str]:
        try:
            while True:
                chunk = next(self._source)
                self._first = self._first or time.perf_counter()
                self._ended = time.perf_counter()
                yield chunk
        except StopIteration as end:
            self._tokens, self._ended = end.value, time.perf_counter()

    def close(self) -> None:
        self._source.close()

    def speed(self) -> str | None:
        """`57 tokens, 31.2 tokens/s, the first after 0.21 s`; None where there was no answer."""
        if self._first is None:
            return None
        seconds, first = self._ended - self._began, f"the first after {self._first - self._began:.2f} s"
        if self._tokens is None:
            return f"{seconds:.1f} s, {first}"
        return f"{self._tokens} tokens, {self._tokens / max(seconds, 1e-9):.1f} tokens/s, {first}"
