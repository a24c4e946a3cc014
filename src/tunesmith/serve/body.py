"""The body of a request as JSON, within its limits."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NoReturn

from starlette.requests import Request

from tunesmith.serve.errors import ApiError, invalid
from tunesmith.serve.limits import Limits

__all__ = ["read_json"]

_LARGE = 256_000
"""Bytes of a body that is read in a thread, so that others are not kept waiting."""


async def read_json(request: Request, limits: Limits) -> Any:
    """Raises ApiError: 415 for another type, 413 for too much, 408 for too slow, 400 for what is no JSON.

    A type of its own is asked for because a page of another site may send plain text and forms to any address, but
    nothing else.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        message = f"the body has to be of type application/json, and is {kind[:80] or 'of no type'}"
        raise ApiError(415, message, code="unsupported_media_type")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "the body may not be compressed", code="unsupported_media_type")
    body = await _read(request, limits)
    if len(body) > _LARGE:
        return await asyncio.to_thread(_parse, body, limits)
    return _parse(body, limits)


async def _read(request: Request, limits: Limits) -> bytes:
    told = request.headers.get("content-length", "0")
    if told.isdigit() and int(told) > limits.body_bytes:
        raise _too_large(limits)
    parts: list[bytes] = []
    size = 0
    stream = request.stream().__aiter__()
    try:
        async with asyncio.timeout(limits.body_seconds):
            while True:
                part = await asyncio.wait_for(anext(stream, None), limits.idle_seconds)
                if part is None:
                    return b"".join(parts)
                size += len(part)
                if size > limits.body_bytes:
                    raise _too_large(limits)
                parts.append(part)
    except TimeoutError:
        raise ApiError(408, "the body did not come in time", code="timeout") from None


def _too_large(limits: Limits) -> ApiError:
    return ApiError(413, f"the body has more than {limits.body_bytes:,} bytes", code="too_large")


def _parse(body: bytes, limits: Limits) -> Any:
    try:
        found = json.loads(body.decode("utf-8"), parse_constant=_no_number)
    except UnicodeDecodeError:
        raise invalid("the body is not UTF-8", None, "invalid_json") from None
    except RecursionError:
        raise _too_deep(limits) from None
    except ValueError as error:
        raise invalid(f"the body is no JSON: {error}", None, "invalid_json") from None
    _check(found, limits)
    return found


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")


def _check(found: Any, limits: Limits) -> None:
    """Depth, and half surrogates, which JSON can write and no text has."""
    level, depth = [found], 0
    while level:
        depth += 1
        if depth > limits.json_depth and any(isinstance(one, dict | list) for one in level):
            raise _too_deep(limits)
        following: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                following += one.values()
                following += one.keys()
            elif isinstance(one, list):
                following += one
            elif isinstance(one, str) and not one.isascii():
                try:
                    one.encode()
                except UnicodeEncodeError:
                    raise invalid("a text in the body has half a surrogate pair", None, "invalid_json") from None
        level = following


def _too_deep(limits: Limits) -> ApiError:
    return invalid(f"the body has more than {limits.json_depth} levels", None, "invalid_json")
