"""What a server's answer means when it is no reply: one table from status to error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.core.errors import (
    DataError,
    MissingInputError,
    Problem,
    TunesmithError,
    UnavailableError,
    UsageError,
)

__all__ = ["KEY", "RETRIED", "failure", "no_answer", "no_protocol"]

KEY = "REMOTE_API_KEY"
"""The variable that holds the key."""

RETRIED = frozenset({408, 429, 502, 503, 504})
"""Statuses after which the same request may be answered."""


@dataclass(frozen=True, slots=True)
class _Meaning:
    code: str
    kind: type[TunesmithError]
    what: str
    fix: str | None = None


_BUSY = _Meaning("E-ENGINE-022", UnavailableError, "the server is too busy", "ask again later, or raise remote_retries")
_REFUSED = _Meaning(
    "E-ENGINE-023", UsageError, "the server refuses the request", "change or leave out what the message names"
)
_NO_KEY = _Meaning("E-ENGINE-021", UsageError, "the server wants another key", f"set {KEY} to a key of that server")
_TOO_LONG = _Meaning(
    "E-ENGINE-025", DataError, "the conversation does not fit the server's context", "shorten it (/clear starts anew)"
)
_NOT_THERE = _Meaning(
    "E-ENGINE-024",
    MissingInputError,
    "the server has no such model or address",
    "remote_url ends with /v1 on most servers; remote_model is one of the names in its /models",
)
_FAILED = _Meaning("E-ENGINE-026", UnavailableError, "the server failed", "its own log says more")

_MEANINGS = {401: _NO_KEY, 403: _NO_KEY, 404: _NOT_THERE, 413: _TOO_LONG, **dict.fromkeys(RETRIED, _BUSY)}
_CODES = {"context_length_exceeded": _TOO_LONG}
"""By the error object's own `code`, which says more than a status."""


def failure(status: int, body: str, where: str) -> TunesmithError:
    """The error that an answer with this status and body means. `body`: an error object of OpenAI's, or any text."""
    found = _error_of(body)
    message = str(found.get("message") or body or "no text")
    meaning = _CODES.get(str(found.get("code"))) or _MEANINGS.get(status) or (_FAILED if status >= 500 else _REFUSED)
    if isinstance(param := found.get("param"), str) and param:
        where = f"{where}, {param}"
    return meaning.kind(Problem(meaning.code, f"{meaning.what} (status {status})", where, message, meaning.fix))


def _error_of(body: str) -> Mapping[str, Any]:
    """OpenAI's error object; some servers send its fields without the object, or a text in place of it."""
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    error = found.get("error", found)
    return error if isinstance(error, dict) else {"message": str(error)}


def no_answer(where: str, why: str) -> UnavailableError:
    """Nothing listens there, or it has been silent for too long."""
    fix = "start the server, correct remote_url, or raise remote_timeout where it is slow"
    return UnavailableError(Problem("E-ENGINE-020", "the server does not answer", where, why, fix))


def no_protocol(where: str, got: str) -> UnavailableError:
    """An answer that is none of OpenAI's protocol, or one that breaks off."""
    fix = "remote_url is the base address of an API in OpenAI's protocol, like http://127.0.0.1:8000/v1"
    what = "the server's answer is not complete, or not of this protocol"
    return UnavailableError(Problem("E-ENGINE-027", what, where, got, fix))
