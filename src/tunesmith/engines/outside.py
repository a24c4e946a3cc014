"""What engines have in common that run in processes of their own and give token ids back, from an asyncio loop.

Texts are made here: ids become text and stop texts end replies as in the engine of this package (`batching.job`), so
that the engines agree. What one of them cannot be asked for is refused by name.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from abc import abstractmethod
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from tunesmith.core.errors import MachineError, MissingInputError, Problem, TunesmithError, UsageError
from tunesmith.core.log import get_logger
from tunesmith.engines.base import Engine, Handle, Overloaded, Pair, Request, Score, Sink, Token
from tunesmith.engines.batching.job import Job
from tunesmith.engines.room import no_media, room_of

if TYPE_CHECKING:
    from tunesmith.config import RunConfig
    from tunesmith.config.generate import GenerateConfig
    from tunesmith.render import Renderer

__all__ = ["OutsideEngine", "Parts", "Step", "adapters_of", "not_installed", "parts_of", "refused", "started"]

T = TypeVar("T")

_READ_MORE = 2
"""Tokens by which scoring reads more here: the last one of a continuation, and one that has to be written."""
_OWN = ""
"""The adapter of the model as configured, in the table of adapters."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is new of a reply. `reason`: how it has ended, where it has."""

    tokens: Sequence[Token] = ()
    cached: int = 0
    reason: Literal["stop", "length"] | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """What every engine needs of a config. `path`: of the model, as located; `own`: its adapter, None for none."""

    path: str
    tokenizer: Any
    renderer: Renderer
    defaults: GenerateConfig
    at_once: int
    queue: int
    own: str | None


def parts_of(config: RunConfig) -> Parts:
    """Raises UsageError (E-ENGINE-032) for several adapters on top of each other and for a mixture of depths, which
    these engines do not have."""
    from tunesmith.models.catalog import fallback_template
    from tunesmith.models.depth_plan import plan_depths
    from tunesmith.models.load import settings_of
    from tunesmith.models.locate import located
    from tunesmith.models.tokenizer import load_tokenizer
    from tunesmith.render import make_renderer

    names = config.model.adapter_name_or_path
    if len(names) > 1:
        what = f"infer_backend: {config.engine.infer_backend} puts one adapter on a model"
        fix = "merge the others first: tunesmith export"
        raise UsageError(Problem("E-ENGINE-032", what, config.place("adapter_name_or_path"), ", ".join(names), fix))
    if plan_depths(config.model, settings_of(config.model)) is not None:
        what = f"{config.engine.infer_backend} would compute all tokens in all layers of a mixture of depths"
        got, fix = str(config.model.model_name_or_path), "infer_backend: huggingface"
        raise UsageError(Problem("E-ENGINE-032", what, config.place("infer_backend"), got, fix))
    own = str(Path(names[0]) / (config.model.adapter_folder or "")) if names else None
    path = str(located(config.model).model_name_or_path)
    tokenizer = load_tokenizer(config.model)
    renderer = make_renderer(config.template, tokenizer, fallback=fallback_template(config.model.model_name_or_path))
    settings = config.engine
    at_once, queue = settings.max_batch_requests, settings.max_queued_requests
    return Parts(path, tokenizer, renderer, config.generate, at_once, queue, own)


def adapters_of(config: RunConfig) -> int:
    """How many adapters may be wanted at a time: those of the config, and one of `adapter_dir`."""
    named = len(config.model.adapter_name_or_path) + len(config.serve.adapters or ())
    return max(named, 1) if config.serve.adapter_dir else named


def refused(engine: str, what: str, why: str) -> UsageError:
    fix = f"leave it out, or use another infer_backend than {engine}"
    return UsageError(Problem("E-ENGINE-031", f"{engine} cannot be asked for {what}", got=why, fix=fix))


def not_installed(package: str, error: ImportError) -> MachineError:
    what = f"infer_backend: {package} needs the package {package}"
    fix = f"pip install 'tunesmith[{package}]', in an environment of its own: it pins torch and transformers"
    return MachineError(Problem("E-ENGINE-030", what, got=str(error), fix=fix))


def started(engine: str, make: Any, arguments: Mapping[str, Any]) -> Any:
    """`make(**arguments)`. Raises MachineError (E-ENGINE-033) with the engine's own words."""
    try:
        return make(**arguments)
    except Exception as error:  # whatever theirs is: a wrong argument, no device, no memory
        words = (str(error).strip().splitlines() or [type(error).__name__])[0]
        fix = f"the lines above are {engine}'s own; {engine}_config holds its arguments"
        raise MachineError(Problem("E-ENGINE-033", f"{engine} does not start", got=words, fix=fix)) from error


class OutsideEngine(Engine):
    """A subclass says how tokens are had (`_steps`), scores made (`_score`), adapters loaded, and what it is called.

    Its own things are made before `__init__`, which begins the thread of the loop.
    """

    name: str

    def __init__(self, parts: Parts, context: int | None) -> None:
        self.tokenizer, self.renderer, self.defaults = parts.tokenizer, parts.renderer, parts.defaults
        self.context, self.at_once, self._queue = context, parts.at_once, parts.queue
        self._adapters: dict[str, Any] = {}
        self._running: dict[str, _Flight] = {}
        self._numbers = itertools.count(1)
        self._done = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=self.name, daemon=True)
        self._thread.start()
        if parts.own is not None:
            try:
                self._adapters[_OWN] = self._wait(self._loaded(_OWN, parts.own))
            except BaseException:
                self.close()
                raise

    # ---- what a subclass has ----

    @abstractmethod
    def _asked(self, request: Request, room: int) -> Any:
        """The request in the engine's own terms. Raises UsageError for what it has no words for."""

    @abstractmethod
    def _steps(self, asked: Any, prompt: list[int], adapter: Any, name: str) -> AsyncGenerator[Step]:
        """The reply as it comes. Closing the generator, or cancelling who waits for it, ends it there too."""

    @abstractmethod
    async def _score(self, prompt: list[int], continuation: list[int], adapter: Any, name: str) -> Score: ...

    @abstractmethod
    async def _load(self, name: str, path: str) -> Any:
        """What `_steps` and `_score` get as the adapter. Raises whatever the engine does."""

    @abstractmethod
    async def _unload(self, adapter: Any) -> None: ...

    @abstractmethod
    def _shut_down(self) -> None: ...

    # ---- the contract ----

    def submit(self, request: Request, sink: Sink) -> Handle:
        adapter = self._adapter(request.adapter)
        if request.media:
            raise no_media(request)
        room = room_of(request, self.context)
        asked = self._asked(request, room)
        if len(self._running) >= self.at_once + self._queue:
            raise Overloaded(len(self._running) - self.at_once, 1.0)
        job = Job(request, sink, self.tokenizer, self.renderer.stop_ids, room)
        name = f"tunesmith-{next(self._numbers)}"
        flight = self._running[name] = _Flight(self._loop, job, request.adapter)
        asyncio.run_coroutine_threadsafe(self._fly(flight, asked, adapter, name), self._loop)
        return flight

    async def _fly(self, flight: _Flight, asked: Any, adapter: Any, name: str) -> None:
        job = flight.job
        flight.task = asyncio.current_task()
        steps = self._steps(asked, list(job.request.prompt), adapter, name)
        try:
            if not job.cancelled:
                async for step in steps:
                    _take(job, step)
                    if job.ended:
                        break
            job.end("cancelled" if job.cancelled else "stop")
        except asyncio.CancelledError:
            job.end("cancelled")
        except TunesmithError as error:
            job.end("error", error=error)
        except Exception as error:
            get_logger().error("a reply of %s failed", self.name, exc_info=error)
            got = f"{type(error).__name__}: {error}"
            job.end("error", error=TunesmithError(Problem("E-ENGINE-007", "this reply could not be computed", got=got)))
        finally:
            try:
                await steps.aclose()
            finally:
                job.tell_end()
                self._running.pop(name, None)
                self._done += 1

    def score(self, pairs: Sequence[Pair], adapter: str | None = None) -> list[Score]:
        from tunesmith.engines.batching.scoring import check_pairs

        found = self._adapter(adapter)
        check_pairs(pairs, self.context and self.context - _READ_MORE)
        return self._wait(self._score_all(pairs, found))

    async def _score_all(self, pairs: Sequence[Pair], adapter: Any) -> list[Score]:
        turns = asyncio.Semaphore(self.at_once)

        async def one(prompt: Sequence[int], continuation: Sequence[int]) -> Score:
            async with turns:
                name = f"tunesmith-{next(self._numbers)}"
                return await self._score(list(prompt), list(continuation), adapter, name)

        return list(await asyncio.gather(*(one(*pair) for pair in pairs)))

    def embed(
        self, prompts: Sequence[Sequence[int]], pooling: Literal["mean", "last"] = "mean", adapter: str | None = None
    ) -> list[list[float]]:
        raise refused(self.name, "embeddings", "one that generates has no hidden states to give")

    @property
    def adapters(self) -> tuple[str, ...]:
        return tuple(name for name in self._adapters if name != _OWN)

    def load_adapter(self, name: str, path: str) -> None:
        if name in self._adapters:
            raise UsageError(Problem("E-ENGINE-009", "an adapter of this name is loaded already", got=name))
        self._adapters[name] = self._wait(self._loaded(name, path))

    async def _loaded(self, name: str, path: str) -> Any:
        from tunesmith.models.locate import check_folder

        check_folder(path, f"adapter {name}" if name else "adapter_name_or_path", must_hold="adapter_config.json")
        try:
            return await self._load(name, path)
        except TunesmithError:
            raise
        except Exception as error:
            what = f"{self.name} does not take this adapter"
            fix = f"{self.name}_config holds its limits, such as the largest rank; or merge it: tunesmith export"
            words = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise MissingInputError(Problem("E-ENGINE-034", what, path, words, fix)) from error

    def unload_adapter(self, name: str) -> None:
        adapter = self._adapter(name)
        for flight in list(self._running.values()):
            if flight.adapter == name:
                flight.fail(_unknown(name, self.adapters))
        del self._adapters[name]
        self._wait(self._unload(adapter))

    def _adapter(self, name: str | None) -> Any:
        if name is None:
            return self._adapters.get(_OWN)
        if not name or name not in self._adapters:
            raise _unknown(name, self.adapters)
        return self._adapters[name]

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def stats(self) -> dict[str, float]:
        return {"running": float(len(self._running)), "replies_total": float(self._done)}

    def close(self) -> None:
        if not self._thread.is_alive():
            return
        for flight in list(self._running.values()):
            flight.cancel()
        self._wait(self._quiet())
        self._shut_down()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _quiet(self) -> None:
        """Until all replies have ended: their sinks are told."""
        while self._running:
            await asyncio.sleep(0.005)


def _take(job: Job, step: Step) -> None:
    job.cached = max(job.cached, step.cached)
    for token in step.tokens:
        if job.ended:  # by a stop text: the engine may be some tokens ahead
            return
        job.take(token)
    if step.reason is not None:
        job.end(step.reason)


def _unknown(name: str, known: Sequence[str]) -> UsageError:
    fix = f"one of: {', '.join(known)}" if known else "load it first"
    return UsageError(Problem("E-ENGINE-006", "no adapter of this name is loaded", got=name, fix=fix))


class _Flight:
    """A reply on its way."""

    def __init__(self, loop: asyncio.AbstractEventLoop, job: Job, adapter: str | None) -> None:
        self._loop, self.job, self.adapter = loop, job, adapter
        self.task: asyncio.Task[None] | None = None

    def cancel(self) -> None:
        if not self.job.cancelled:
            self.job.cancel()
            self._call(self._stop)

    def fail(self, error: TunesmithError) -> None:
        def end() -> None:
            self._stop()
            self.job.end("error", error=error)

        self._call(end)

    def _stop(self) -> None:
        if self.task is not None and not self.job.ended:
            self.task.cancel()

    def _call(self, work: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(work)
