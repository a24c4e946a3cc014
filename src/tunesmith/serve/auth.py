"""Keys of the API: how they have to look, how they are kept (hashed) and compared, and who has guessed too often."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from tunesmith.core.errors import MachineError, Problem
from tunesmith.serve.errors import ApiError

__all__ = ["BackOff", "Keys", "key_of", "read_keys"]

LEAST, MOST = 16, 256
"""Characters of a key."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The SHA-256 of each key; the keys themselves are forgotten."""

    digests: tuple[bytes, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.digests)

    def know(self, key: bytes) -> bool:
        """Whether it is one of them. All are compared, in the same time whatever is given."""
        digest = sha256(key).digest()
        found = False
        for known in self.digests:
            found |= hmac.compare_digest(digest, known)
        return found


def read_keys(text: str, where: str) -> tuple[Keys, list[str]]:
    """The keys in a text, between commas or one per line, and what was mended.

    Raises MachineError (E-SERVE-001, exit code 78) for a key that cannot be one: a server that starts without the
    lock that was asked for would be open.
    """
    notes = []
    stripped = text.rstrip("\r\n")
    if stripped != text:
        notes.append(f"{where}: the line end behind the last key is left out")
    if not stripped:
        return Keys(), notes
    digests = []
    for number, key in enumerate(stripped.replace("\r\n", "\n").replace("\n", ",").split(","), 1):
        if wrong := _what_is_wrong(key):
            fix = f"{LEAST} to {MOST} characters from ! to ~ without a comma; make one:  openssl rand -hex 24"
            raise MachineError(Problem("E-SERVE-001", f"key {number} of {where} {wrong}", where=where, fix=fix))
        digests.append(sha256(key.encode()).digest())
    return Keys(tuple(digests)), notes


def _what_is_wrong(key: str) -> str | None:
    """Never with the key itself: messages end up in logs."""
    for place, char in enumerate(key, 1):
        if not "!" <= char <= "~":
            return f"has a character that no key may have, at place {place} of {len(key)}"
    if not LEAST <= len(key) <= MOST:
        return f"has {len(key)} characters"
    return None


class BackOff:
    """Counts wrong keys by address. After `patience` of them an address has to wait, twice as long each time, up to a
    minute; a right key is never kept waiting, so nobody can lock others out."""

    patience, longest, remembered = 5, 60.0, 1024

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: dict[str, tuple[int, float]] = {}  # address -> how many, when the last one was

    def refuse(self, address: str) -> ApiError:
        """The answer to a wrong key, or to none: 401, and 429 for who has to wait."""
        count, last = self._wrong.pop(address, (0, 0.0))
        now = self._clock()
        if now - last > 10 * self.longest:
            count = 0
        wait = min(2.0 ** max(0, count - self.patience), self.longest) if count >= self.patience else 0.0
        if now - last < wait:
            self._remember(address, count, last)
            left = str(int(wait - (now - last)) + 1)
            message = "too many requests without a right API key came from this address"
            return ApiError(
                429, message, kind="rate_limit_error", code="too_many_wrong_keys", headers={"Retry-After": left}
            )
        self._remember(address, count + 1, now)
        message = "a right API key is needed: send the header Authorization: Bearer KEY"
        return ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})

    def _remember(self, address: str, count: int, last: float) -> None:
        if len(self._wrong) >= self.remembered:
            del self._wrong[next(iter(self._wrong))]  # the one that was heard of longest ago
        self._wrong[address] = (count, last)


def key_of(headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    """What follows "Bearer" in the one Authorization header; None where there is none, several, or another scheme."""
    found = [value for name, value in headers if name == b"authorization"]
    if len(found) != 1:
        return None
    scheme, _, key = found[0].partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" and key.strip() else None
