"""Listening, and ending well: a server that is asked to stop takes nothing new and finishes what it has begun."""

from __future__ import annotations

import asyncio
import json
import shlex
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from tunesmith.core.errors import ConfigError, MachineError, Problem
from tunesmith.core.log import get_logger
from tunesmith.serve.app import make_app
from tunesmith.serve.protocol import protocol
from tunesmith.serve.service import Service, Task
from tunesmith.serve.settings import NAME, Settings

if TYPE_CHECKING:
    from tunesmith.config import RunConfig
    from tunesmith.config.serve import ServeConfig
    from tunesmith.engines.base import Engine
    from tunesmith.engines.rewards import RewardEngine

__all__ = ["Server", "bind", "engine_of", "greeting", "load_adapters", "serve"]


class Server(uvicorn.Server):
    """Stops in three steps: at the first signal `/ready` says no and requests for text are refused; when the last
    answer is written, or after `drain_seconds`, the connections end. A second signal ends them at once."""

    def __init__(self, service: Service) -> None:
        config = uvicorn.Config(
            make_app(service),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            http=protocol(service.limits.idle_seconds),
            server_header=False,
            proxy_headers=False,  # who the client is, is not for the client to say
            h11_max_incomplete_event_size=service.limits.header_bytes,
            timeout_keep_alive=int(service.limits.idle_seconds),
            timeout_graceful_shutdown=1,  # the answers are waited for here
        )
        super().__init__(config)
        self.service = service
        self._stopping: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal has come, in the main thread."""
        if self.service.draining:
            self.should_exit = self.force_exit = True
        else:
            self.service.draining = True
            get_logger().info("stopping: answers that are being written are finished; a second signal ends them")
            self._loop.call_soon_threadsafe(self.stop)

    def stop(self) -> None:
        """Begin to drain, from within the loop."""
        self.service.draining = True
        self._stopping = self._stopping or asyncio.ensure_future(self._drain())

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    async def _drain(self) -> None:
        deadline = time.monotonic() + self.service.limits.drain_seconds
        while self.service.running and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        if self.service.running:
            get_logger().warning("%d answers were not finished in time", len(self.service.running))
            for running in list(self.service.running):
                running.close()
            await asyncio.sleep(0.2)  # for their last words
        self.should_exit = True


def bind(settings: Settings) -> socket.socket:
    """A socket at its address; it listens when the server does. Raises MachineError (E-SERVE-007) where the address
    cannot be had."""
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        fix = "set API_PORT to a free one (0 takes any), or API_HOST to an address of this machine"
        problem = Problem("E-SERVE-007", "the server cannot listen there", where, error.strerror or str(error), fix)
        raise MachineError(problem) from error
    return made


def serve(config: RunConfig, note: Callable[[str], None]) -> None:
    """Load the model and answer requests until a signal comes. `note` is told what the user should know: what the
    address is, and what was mended in the environment."""
    from tunesmith.models.catalog import fallback_template

    settings = Settings.from_env(_name_of(config), note)  # before anything that takes time
    with bind(settings) as sock:
        began = time.monotonic()
        with engine_of(config) as engine:
            load_adapters(engine, config.serve, settings.model_name)
            folder = config.serve.adapter_dir
            service = Service(
                engine,
                settings,
                template=config.template,
                fallback=fallback_template(config.model.model_name_or_path),
                adapter_dir=Path(folder).expanduser() if folder else None,
            )
            service.metrics.load_seconds = time.monotonic() - began
            sock.listen()  # who reads the next lines may connect at once
            note(greeting(service, sock.getsockname()[1]))
            asyncio.run(Server(service).serve([sock]))


def engine_of(config: RunConfig) -> Engine | RewardEngine:
    """A reward model gets an engine of its own. With stage: rm nothing else will do."""
    from tunesmith.engines import make_engine
    from tunesmith.engines.rewards import RewardEngine, gives_rewards

    asked = config.objective.stage == "rm"
    if asked or (config.engine.infer_backend != "remote" and gives_rewards(config.model)):
        return RewardEngine.from_config(config)
    return make_engine(config)


def load_adapters(engine: Engine | RewardEngine, config: ServeConfig, model_name: str) -> None:
    """Those of the config. Raises ConfigError for a name that is none, or the model's own, and for any beside a reward
    model; and what the engine does."""
    from tunesmith.engines.rewards import RewardEngine

    if isinstance(engine, RewardEngine):
        if config.adapters or config.adapter_dir:
            what = "a reward model has no adapters with names: its output layer comes with its own"
            fix = "adapter_name_or_path, for the one that it has"
            raise ConfigError(Problem("E-SERVE-010", what, "adapters, adapter_dir", fix=fix))
        return
    problems = []
    for name, path in (config.adapters or {}).items():
        if not isinstance(path, str) or not NAME.fullmatch(str(name)) or name == model_name:
            what = "adapters are a mapping from names to paths, each with a name of its own"
            problems.append(Problem("E-SERVE-009", what, "adapters", f"{name}: {path}", "like {poet: saves/poet}"))
    if problems:
        raise ConfigError(problems)
    for name, path in (config.adapters or {}).items():
        engine.load_adapter(str(name), path)


def _name_of(config: RunConfig) -> str:
    """What the model is called where nobody says otherwise: the last part of its path or id."""
    name = Path(str(config.model.model_name_or_path)).name
    return "".join(char if "!" <= char <= "~" else "-" for char in name) or "model"


_FIRST: dict[Task, tuple[str, dict[str, Any]]] = {
    "generate": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hello"}]}),
    "score": ("/v1/rerank", {"query": "hello", "documents": ["Hello! How are you?", "Go away."]}),
}
"""What the greeting asks, by the model's task."""


def greeting(service: Service, port: int) -> str:
    """Where the server is, what it is called, and how to ask it."""
    settings = service.settings
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    base = f"http://{host}:{port}{settings.root_path}"
    key = "  -H 'Authorization: Bearer KEY' \\\n" if settings.keys else ""
    path, body = _FIRST[service.task]
    body = {"model": settings.model_name, **body}
    keys = len(settings.keys.digests)
    guard = f"{keys} key{'s' if keys > 1 else ''}" if keys else "no key, for this machine only"
    names = ", ".join(service.names)
    return (
        f"serving {names} at {base}/v1 ({guard}); Ctrl-C stops\n"
        f"curl {base}{path} -H 'Content-Type: application/json' \\\n{key}"
        f"  -d {shlex.quote(json.dumps(body))}"
    )
