"""Token ids to another server, by /completions: a whole `Engine`, where the server's model has the local tokenizer."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.core.errors import DataError, Problem, TunesmithError, UsageError
from tunesmith.core.log import get_logger
from tunesmith.engines.base import End, Engine, Handle, Pair, Piece, Request, Sampling, Score, Sink
from tunesmith.engines.remote.chat import connect, models_of
from tunesmith.engines.remote.failures import no_protocol
from tunesmith.engines.remote.fields import as_fields, refused
from tunesmith.engines.remote.http import Cancelled, Line, Server
from tunesmith.engines.room import no_media, room_of

if TYPE_CHECKING:
    from tunesmith.config import RunConfig
    from tunesmith.config.generate import GenerateConfig
    from tunesmith.render import Renderer

__all__ = ["RemoteEngine"]

_PATH = "/completions"


class RemoteEngine(Engine):
    """`models`: what the server lists. Adapters are the models there that have `model` as their parent. How a reply is
    drawn is said in full: what a request left out would be as the server's own settings have it."""

    def __init__(
        self,
        server: Server,
        model: str,
        models: Sequence[Mapping[str, Any]],
        tokenizer: Any,
        renderer: Renderer,
        defaults: GenerateConfig,
        at_once: int,
    ) -> None:
        self._server, self._model = server, model
        self.tokenizer, self.renderer, self.defaults, self.at_once = tokenizer, renderer, defaults, at_once
        own = next((one for one in models if one["id"] == model), {})
        self.context = own.get("max_model_len")
        self._adapters = tuple(str(one["id"]) for one in models if one.get("parent") == model and one["id"] != model)
        self._running: set[Line] = set()
        self._done = 0

    @classmethod
    def from_config(cls, config: RunConfig) -> RemoteEngine:
        from tunesmith.models.catalog import fallback_template
        from tunesmith.models.tokenizer import load_tokenizer
        from tunesmith.render import make_renderer

        server = connect(config.engine)
        model, models = models_of(server, config.engine.remote_model)
        tokenizer = load_tokenizer(config.model)
        renderer = make_renderer(
            config.template, tokenizer, fallback=fallback_template(config.model.model_name_or_path)
        )
        return cls(server, model, models, tokenizer, renderer, config.generate, config.engine.max_batch_requests)

    # ---- the contract ----

    def submit(self, request: Request, sink: Sink) -> Handle:
        if request.constraint is not None:
            raise refused("a constraint on the reply", "it decides token by token, and here whole texts come")
        if request.media:
            raise no_media(request)
        body = self._body(request.adapter, request.prompt, request.sampling)
        body |= {"max_tokens": room_of(request, self.context), "stream": True}
        body["stream_options"] = {"include_usage": True}
        line = Line()
        self._running.add(line)
        threading.Thread(target=self._answer, args=(request, body, line, sink), name="remote", daemon=True).start()
        return line

    def _body(self, adapter: str | None, prompt: Sequence[int], sampling: Sampling) -> dict[str, Any]:
        self._check_adapter(adapter)
        asked = {field.name: getattr(sampling, field.name) for field in fields(sampling)}
        del asked["max_length"], asked["max_new_tokens"]  # they are the room, counted with the prompt
        asked["do_sample"] = not sampling.greedy
        return {"model": adapter or self._model, "prompt": list(prompt), **as_fields(asked)}

    def _answer(self, request: Request, body: dict[str, Any], line: Line, sink: Sink) -> None:
        """In a thread of its own, to the last piece."""
        reply = _Reply(len(request.prompt), self.tokenizer)
        try:
            for chunk in self._server.events(_PATH, body, line):
                if text := reply.take(chunk):
                    sink(Piece(text))
            if reply.reason is None:
                raise no_protocol(self._server.url + _PATH, "the stream does not say how the reply ended")
            end = reply.end()
        except Cancelled:
            end = reply.end("cancelled")
        except TunesmithError as error:
            end = reply.end("error", error)
        except Exception as error:  # ours or the sink's: this reply ends, and who waits for it is told
            get_logger().error("a reply of the remote engine failed", exc_info=error)
            got = f"{type(error).__name__}: {error}"
            problem = Problem("E-ENGINE-007", "this reply could not be computed", got=got)
            end = reply.end("error", TunesmithError(problem))
        finally:
            self._running.discard(line)
        self._done += 1
        sink(Piece(end=end))

    def score(self, pairs: Sequence[Pair], adapter: str | None = None) -> list[Score]:
        """By the log probabilities of an echoed prompt, one request for each pair. Raises UsageError (E-ENGINE-023,
        E-ENGINE-028) where the server gives none."""
        return [self._score(prompt, continuation, adapter) for prompt, continuation in pairs]

    def _score(self, prompt: Sequence[int], continuation: Sequence[int], adapter: str | None) -> Score:
        if not prompt or not continuation:
            what = "neither the prompt nor the continuation may be empty"
            raise DataError(Problem("E-ENGINE-011", what, got=f"{len(prompt)} and {len(continuation)} tokens"))
        self._check_adapter(adapter)
        ids = [*prompt, *continuation]
        body: dict[str, Any] = {"model": adapter or self._model, "prompt": ids, "echo": True, "logprobs": 1}
        found = self._server.post(_PATH, {**body, "max_tokens": 1, "temperature": 0})
        told = (found.get("choices") or [{}])[0].get("logprobs") or {}
        logprobs, top = told.get("token_logprobs") or [], told.get("top_logprobs") or []
        if not len(ids) <= len(logprobs) == len(top) <= len(ids) + 1:
            raise refused("scoring", "the server does not tell the log probabilities of the prompt")
        own = range(len(prompt), len(ids))
        best = all(logprobs[place] >= max(top[place].values()) for place in own)
        return Score(tuple(float(logprobs[place]) for place in own), best)

    def embed(
        self, prompts: Sequence[Sequence[int]], pooling: Literal["mean", "last"] = "mean", adapter: str | None = None
    ) -> list[list[float]]:
        raise refused("embedding", "servers scale the vectors and choose the pooling themselves")

    @property
    def adapters(self) -> tuple[str, ...]:
        return self._adapters

    def load_adapter(self, name: str, path: str) -> None:
        raise refused("loading an adapter", "that is done where the server is")

    def unload_adapter(self, name: str) -> None:
        raise refused("unloading an adapter", "that is done where the server is")

    def _check_adapter(self, name: str | None) -> None:
        if name is not None and name not in self._adapters:
            fix = f"one of: {', '.join(self._adapters)}" if self._adapters else "the server lists none"
            raise UsageError(Problem("E-ENGINE-006", "no adapter of this name is loaded", got=name, fix=fix))

    def stats(self) -> dict[str, float]:
        return {"running": float(len(self._running)), "replies_total": float(self._done)}

    def close(self) -> None:
        for line in list(self._running):
            line.cancel()


class _Reply:
    """What a stream has told so far."""

    def __init__(self, prompt_tokens: int, tokenizer: Any) -> None:
        self._prompt, self._tokenizer = prompt_tokens, tokenizer
        self._text = ""
        self._usage: Mapping[str, Any] = {}
        self._stop: str | None = None
        self.reason: Literal["stop", "length"] | None = None

    def take(self, chunk: Mapping[str, Any]) -> str:
        self._usage = chunk.get("usage") or self._usage
        text = ""
        for choice in chunk.get("choices") or ():
            text += choice.get("text") or ""
            if reason := choice.get("finish_reason"):
                self.reason = "length" if reason == "length" else "stop"
                stop = choice.get("stop_reason")  # vLLM's word for the stop text
                self._stop = stop if isinstance(stop, str) else None
        self._text += text
        return text

    def end(
        self, reason: Literal["stop", "length", "cancelled", "error"] | None = None, error: TunesmithError | None = None
    ) -> End:
        cached = (self._usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        count = self._usage.get("completion_tokens")
        if count is None:  # some servers do not count, and cancelled replies are not counted
            count = len(self._tokenizer.encode(self._text, add_special_tokens=False))
        how = reason or self.reason or "stop"
        return End(how, self._prompt, cached, count, None if reason else self._stop, error)
