"""A server on a free port of this machine, and an engine that says what a test wrote down."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tunesmith.config import RunConfig, load_config
from tunesmith.core.errors import DataError, MissingInputError, Problem
from tunesmith.engines.base import End, Engine, Overloaded, Pair, Piece, Request, Score, Sink, Token
from tunesmith.engines.rewards import RewardEngine
from tunesmith.render import make_renderer
from tunesmith.serve.server import Server, bind
from tunesmith.serve.service import Service
from tunesmith.serve.settings import Settings

Script = Callable[[Request], Sequence[str | Exception]]
"""What is said to a request, in pieces; an exception ends it as an error."""


def say(*pieces: str | Exception) -> Script:
    return lambda request: pieces


def by_seed(request: Request) -> list[str]:
    """Words that follow from the prompt and the seed, like those of a model."""
    draw = random.Random(f"{hashlib.sha256(repr(request.prompt).encode()).hexdigest()} {request.sampling.seed}")
    return [draw.choice(["one ", "two ", "größer ", "😀", "\n", "<tool", ", "]) for _ in range(draw.randint(3, 30))]


@dataclass
class _Handle:
    cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        self.cancelled.set()


class ScriptedEngine(Engine):
    """Obeys the contract: a thread for each request, stop texts with hold-back, limits, log probabilities, cancelling.
    A token is a character here, with its code point as number, wherever nothing else is needed of it."""

    def __init__(
        self, model: Path, script: Script = by_seed, *, context: int | None = 4096, pause: float = 0.0
    ) -> None:
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.config = load_config({"model_name_or_path": str(model)}, verb="chat")
        self.renderer = make_renderer(self.config.template, self.tokenizer)
        self.defaults = self.config.generate
        self.context, self.at_once = context, 8
        self.script, self.pause = script, pause
        self.requests: list[Request] = []
        self.handles: list[_Handle] = []
        self.live = 0
        self.most_live = 10_000
        self.known: dict[str, str] = {}
        self._lock = threading.Lock()

    @classmethod
    def from_config(cls, config: RunConfig) -> ScriptedEngine:
        return cls(Path(str(config.model.model_name_or_path)))

    def submit(self, request: Request, sink: Sink) -> _Handle:
        with self._lock:
            if self.live >= self.most_live:
                raise Overloaded(self.live, 2.5)
            self.live += 1
        handle = _Handle()
        self.requests.append(request)
        self.handles.append(handle)
        threading.Thread(target=self._speak, args=(request, sink, handle), daemon=True).start()
        return handle

    def _speak(self, request: Request, sink: Sink, handle: _Handle) -> None:
        count, ended = 0, None
        try:
            for piece in _until_stop(self._pieces(request), request.sampling.stop):
                if handle.cancelled.wait(self.pause) if self.pause else handle.cancelled.is_set():
                    ended = self._end(request, "cancelled", count)
                    break
                if isinstance(piece, Exception):
                    ended = self._end(request, "error", count, error=piece)
                    break
                text, stop = piece
                room = request.sampling.max_new_tokens
                if room is not None and count + len(text) >= room:
                    text = text[: room - count]
                    ended = self._end(request, "length", room)
                count += len(text)
                sink(Piece(text, self._tokens(request, text)))
                if ended or stop:
                    ended = ended or self._end(request, "stop", count, stop=stop)
                    break
            self._leave()
            sink(Piece(end=ended or self._end(request, "stop", count + 1)))
        except Exception as error:
            sink(Piece(end=self._end(request, "error", count, error=error)))
            raise

    def _pieces(self, request: Request) -> Sequence[str | Exception]:
        return self.script(request)

    def _leave(self) -> None:
        with self._lock:
            self.live -= 1

    def _tokens(self, request: Request, text: str) -> tuple[Token, ...]:
        if request.sampling.logprobs is None:
            return ()
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        top = tuple((other, -1.0 - other) for other in range(request.sampling.logprobs))
        return tuple(Token(one, -0.5, top) for one in ids)

    def _end(self, request: Request, reason: Any, count: int, **more: Any) -> End:
        return End(reason, len(request.prompt), 0, count, **more)

    def embed(
        self, prompts: Sequence[Sequence[int]], pooling: Literal["mean", "last"] = "mean", adapter: str | None = None
    ) -> list[list[float]]:
        if not all(prompts):
            raise DataError(Problem("E-ENGINE-002", "the prompt is empty"))
        return [[float(len(prompt)), float(prompt[-1]), 1.0 if pooling == "mean" else 2.0] for prompt in prompts]

    def score(self, pairs: Sequence[Pair], adapter: str | None = None) -> list[Score]:
        return [Score(tuple(-1.0 for _ in continuation), False) for _, continuation in pairs]

    @property
    def adapters(self) -> tuple[str, ...]:
        return tuple(self.known)

    def load_adapter(self, name: str, path: str) -> None:
        if (Path(path) / "broken").exists():
            raise MissingInputError(Problem("E-MODEL-001", "the adapter does not fit"))
        self.known[name] = path

    def unload_adapter(self, name: str) -> None:
        del self.known[name]

    def stats(self) -> dict[str, float]:
        return {"running": float(self.live)}

    def close(self) -> None:
        for handle in self.handles:
            handle.cancel()

    def idle(self, seconds: float = 5.0) -> bool:
        """Whether nothing runs any more, in so many seconds at most."""
        deadline = time.monotonic() + seconds
        while self.live and time.monotonic() < deadline:
            time.sleep(0.01)
        return not self.live


def _until_stop(
    pieces: Sequence[str | Exception], stops: Sequence[str]
) -> Iterator[tuple[str, str | None] | Exception]:
    """(text, which stop text came) with what may begin one held back."""
    held = ""
    for piece in pieces:
        if isinstance(piece, Exception):
            yield piece
            return
        held += piece
        found = [(held.find(stop), stop) for stop in stops if stop in held]
        if found:
            start, stop = min(found)
            yield held[:start], stop
            return
        keep = max(
            (size for stop in stops for size in range(len(stop)) if size and held.endswith(stop[:size])), default=0
        )
        yield held[: len(held) - keep], None
        held = held[len(held) - keep :]
    if held:
        yield held, None


@contextmanager
def serving(engine: Engine | RewardEngine, **settings: Any) -> Iterator[tuple[str, Service]]:
    """(address, service) of a server around `engine`. `settings`: of `Settings`, and of `Service`."""
    of_service = {name: settings.pop(name) for name in ("template", "adapter_dir", "limits") if name in settings}
    made = Settings(port=0, **{"model_name": "tiny", **settings})
    service = Service(engine, made, **of_service)
    with bind(made) as sock:
        server = Server(service)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([sock])), name="server", daemon=True)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the server did not start"
                time.sleep(0.005)
            yield f"http://127.0.0.1:{sock.getsockname()[1]}", service
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive(), "the server did not stop"
            engine.close()
            service.grammars.close()


def without_times(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What two answers to one request have in common."""
    return {name: value for name, value in answer.items() if name not in ("id", "created")}


@contextmanager
def api(model: Path, *words: str, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """`tunesmith serve` as a process: (it, its address, lines that it printed at its start)."""
    given = {**os.environ, "API_PORT": "0", **variables}
    command = [sys.executable, "-m", "tunesmith", "serve", f"model_name_or_path={model}", "use_cpu=true", *words]
    with subprocess.Popen(command, env=given, stderr=subprocess.PIPE, text=True) as process:
        try:
            lines: list[str] = []
            assert process.stderr is not None
            for line in process.stderr:
                lines.append(line)
                if found := re.search(r" at (http://\S+)/v1", line):
                    break
            else:
                raise AssertionError("".join(lines))
            threading.Thread(target=lambda: lines.extend(process.stderr or ()), daemon=True).start()  # or it fills up
            yield process, found[1], lines
        finally:
            process.kill()
            process.wait(10)
