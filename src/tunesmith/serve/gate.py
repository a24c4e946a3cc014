"""What every request passes before its endpoint: size, host, origin, key; and what every answer gets: an id, a line in
the log, a place in the counters."""

from __future__ import annotations

import ipaddress
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from hashlib import sha256
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from tunesmith.core.log import get_logger
from tunesmith.serve.auth import BackOff, Keys, key_of
from tunesmith.serve.errors import ApiError, bug
from tunesmith.serve.limits import Limits
from tunesmith.serve.metrics import Metrics
from tunesmith.serve.streams import ClientGone

__all__ = ["OPEN_PATHS", "Gate"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = ("/health", "/ready")
"""The only ones that are answered without a key: what a supervisor asks."""

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Gate:
    """An ASGI application around another one. `hosts`: names that the Host header may have; None: any, as a key is
    needed then. A page on another site can send requests to a loopback address, also under a name of its own, but it
    cannot choose these two headers."""

    def __init__(
        self,
        app: App,
        *,
        keys: Keys,
        limits: Limits,
        metrics: Metrics,
        hosts: frozenset[str] | None,
        root_path: str = "",
    ) -> None:
        self._app, self._keys, self._limits, self._metrics = app, keys, limits, metrics
        self._hosts, self._root = hosts, root_path.rstrip("/")
        self._back_off = BackOff()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        if self._root:
            scope["root_path"] = self._root
        given = _header(scope, b"x-request-id")
        scope["request_id"] = given if _ID.fullmatch(given) else f"req_{secrets.token_hex(16)}"
        answer = _Answer(scope, send)
        began = time.monotonic()
        try:
            await self._pass(scope, receive, answer)
        except ApiError as error:
            await self._refuse(error, answer)
        except ClientGone:
            pass
        except HTTPException as error:  # of the router: no such path, or not this method
            message = f"{scope['method']} is not allowed here" if error.status_code == 405 else "there is no such path"
            code = "method_not_allowed" if error.status_code == 405 else "not_found"
            await self._refuse(ApiError(error.status_code, message, code=code, headers=error.headers), answer)
        except Exception as error:
            await self._refuse(bug(error, scope["request_id"]), answer)
        finally:
            self._tell(scope, answer.status, time.monotonic() - began)

    async def _pass(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        size = sum(len(name) + len(value) + 4 for name, value in scope["headers"]) + len(scope["raw_path"])
        if size + len(scope["query_string"]) > self._limits.header_bytes:
            raise ApiError(431, f"the headers have more than {self._limits.header_bytes} bytes", code="too_large")
        host = _header(scope, b"host")
        if self._hosts is not None and _host_of(host) not in self._hosts:
            message = "this server listens on a loopback address only, and the Host header names another one"
            raise ApiError(403, message, code="wrong_host")
        origin = _header(scope, b"origin")
        if origin and (urlsplit(origin).netloc or "null") != host:
            raise ApiError(403, "requests from pages of other sites are refused", code="wrong_origin")
        path = scope["path"].removeprefix(self._root)
        scope["client_name"] = _address(scope)
        if self._keys and path not in OPEN_PATHS:
            self._check_key(scope)
        await self._app(scope, receive, answer)

    def _check_key(self, scope: Scope) -> None:
        key = key_of(scope["headers"])
        if key is None or not self._keys.know(key):
            raise self._back_off.refuse(_address(scope))
        scope["client_name"] += f" {sha256(key).hexdigest()[:16]}"

    async def _refuse(self, error: ApiError, answer: _Answer) -> None:
        self._metrics.count("rejected_total", code=error.code or error.kind)
        await answer.error(error)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("route_path", "(none)")
        method = scope["method"] if scope["method"] in ("GET", "POST", "DELETE", "HEAD", "OPTIONS") else "(other)"
        self._metrics.count("requests_total", route=route, method=method, status=str(status))
        self._metrics.observe("request_seconds", seconds)
        if route not in OPEN_PATHS:
            told = (method, route, status, seconds, _address(scope), scope["request_id"])
            get_logger().info("%s %s %d in %.3f s, %s %s", *told)


class _Answer:
    """`send` that adds the headers of every answer and remembers what was sent."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope, self._send = scope, send
        self.status = 499  # the client left before there was an answer
        self.begun = False

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status, self.begun = message["status"], True
            extra = {"x-request-id": self._scope["request_id"], "x-content-type-options": "nosniff"}
            message["headers"] = [
                *message.get("headers", ()),
                *((name.encode(), value.encode()) for name, value in extra.items()),
            ]
        await self._send(message)

    async def error(self, error: ApiError) -> None:
        """An error as the whole answer. Where the answer has begun there is no place for it any more: the connection
        ends without the last part, which clients take for what it is."""
        if self.begun:
            raise error
        response = JSONResponse(error.body(), error.status, error.headers)
        if error.status in (408, 413, 431):  # the rest of the request is not read
            response.headers["Connection"] = "close"
        await response(self._scope, _nothing, self)


async def _nothing() -> Any:
    return {"type": "http.disconnect"}


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def _host_of(header: str) -> str:
    """A Host header without its port, in lower case and without the brackets of IPv6."""
    name = header.lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0]


def _address(scope: Scope) -> str:
    """Of the other end of the connection. A network of /64 is one client in IPv6."""
    client = scope.get("client")
    if not client:
        return "-"
    try:
        address = ipaddress.ip_address(client[0])
    except ValueError:
        return str(client[0])
    if address.version == 6 and not address.is_loopback:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
