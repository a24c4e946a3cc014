"""The application: a table of routes, behind the gate."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route, Router

from tunesmith.serve import chat, completions, embeddings, models, scores, vocabulary
from tunesmith.serve.gate import OPEN_PATHS, Gate, Receive, Scope, Send
from tunesmith.serve.metrics import CONTENT_TYPE
from tunesmith.serve.openapi import document
from tunesmith.serve.service import Service, Task

__all__ = ["ROUTES", "TASKS", "make_app"]


async def _health(http: Request) -> Any:
    """The process answers."""
    return JSONResponse({"status": "ok"})


async def _ready(http: Request) -> Any:
    """It takes requests for the model."""
    service: Service = http.scope["service"]
    if service.draining:
        return JSONResponse({"status": "stopping"}, 503)
    return JSONResponse({"status": "ready"})


async def _metrics(http: Request) -> Any:
    service: Service = http.scope["service"]
    gauges = {"running_requests": len(service.running), "waiting_for_slot": service.slots.waiting}
    return PlainTextResponse(service.metrics.text(gauges, service.made.stats()), media_type=CONTENT_TYPE)


async def _openapi(http: Request) -> Any:
    service: Service = http.scope["service"]
    return JSONResponse(document(ROUTES, tuple(service.names), OPEN_PATHS))


Endpoint: TypeAlias = Callable[[Request], Awaitable[Any]]

ROUTES: tuple[tuple[str, str, Endpoint], ...] = (
    ("POST", "/v1/chat/completions", chat.create),
    ("POST", "/v1/completions", completions.create),
    ("POST", "/v1/embeddings", embeddings.create),
    ("POST", "/v1/score/evaluation", scores.evaluate),
    ("POST", "/v1/rerank", scores.rerank),
    ("GET", "/v1/models", models.models),
    ("GET", "/v1/models/{name:path}", models.model),
    ("GET", "/v1/adapters", models.adapters),
    ("POST", "/v1/adapters", models.load_adapter),
    ("DELETE", "/v1/adapters/{name}", models.unload_adapter),
    ("POST", "/tokenize", vocabulary.tokenize),
    ("POST", "/detokenize", vocabulary.detokenize),
    ("GET", "/health", _health),
    ("GET", "/ready", _ready),
    ("GET", "/metrics", _metrics),
    ("GET", "/openapi.json", _openapi),
)
"""Method, path, endpoint."""
TASKS: Mapping[Endpoint, Task] = {
    chat.create: "generate",
    completions.create: "generate",
    embeddings.create: "generate",
    models.load_adapter: "generate",
    models.unload_adapter: "generate",
    scores.evaluate: "score",
    scores.rerank: "score",
}
"""What the model has to be for; others are answered for any."""


def make_app(service: Service) -> Gate:
    """The ASGI application of a service."""
    by_path: dict[str, dict[str, Endpoint]] = {}
    for method, path, endpoint in ROUTES:
        by_path.setdefault(path, {})[method] = endpoint
    routes = [Route(path, _choose(path, methods), methods=list(methods)) for path, methods in by_path.items()]
    router = Router(routes, redirect_slashes=False, default=_no_path)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["service"] = service
        scope["app"] = app  # the router raises what it would otherwise answer by itself
        await router(scope, receive, send)

    settings = service.settings
    return Gate(
        app,
        keys=settings.keys,
        limits=service.limits,
        metrics=service.metrics,
        hosts=settings.hosts,
        root_path=settings.root_path,
    )


def _choose(path: str, methods: Mapping[str, Endpoint]) -> Endpoint:
    async def endpoint(http: Request) -> Any:
        http.scope["route_path"] = path
        chosen = methods["GET" if http.method == "HEAD" else http.method]
        if (task := TASKS.get(chosen)) is not None:
            http.scope["service"].check_task(task)
        return await chosen(http)

    return endpoint


async def _no_path(scope: Scope, receive: Receive, send: Send) -> None:
    raise HTTPException(404)
