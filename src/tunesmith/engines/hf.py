"""Generation in plain PyTorch with a transformers model, one request at a time, with a key-value cache. Its greedy
replies equal those of transformers' `generate`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.core.errors import DataError, Problem, TunesmithError, UsageError
from tunesmith.core.log import get_logger
from tunesmith.engines.base import End, Engine, FinishReason, Overloaded, Piece, Request, Sampling, Sink, Token
from tunesmith.engines.batching.choose import Chooser
from tunesmith.engines.batching.stops import ReplyText
from tunesmith.engines.detokenize import Detokenizer

if TYPE_CHECKING:
    from tunesmith.config import RunConfig
    from tunesmith.config.generate import GenerateConfig
    from tunesmith.render import Renderer

__all__ = ["HFEngine"]


WAITING = 64
"""Requests that may wait."""


class _Job:
    """A submitted request."""

    def __init__(self, request: Request, sink: Sink) -> None:
        self.request, self.sink = request, sink
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class HFEngine(Engine):
    at_once = 1

    def __init__(
        self, model: Any, tokenizer: Any, renderer: Renderer, defaults: GenerateConfig, *, use_cache: bool = True
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.renderer = renderer
        self.defaults = defaults
        self.context = getattr(model.config, "max_position_embeddings", None)
        self._use_cache = use_cache
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="tunesmith-engine", daemon=True)
        self._thread.start()

    @classmethod
    def from_config(cls, config: RunConfig) -> HFEngine:
        from tunesmith.methods.base import Adapters
        from tunesmith.methods.merge import attach_adapter, merge_adapters
        from tunesmith.models.catalog import fallback_template
        from tunesmith.models.load import ATTENTION, infer_dtype, load
        from tunesmith.models.machine import pick_device
        from tunesmith.render import make_renderer

        device = pick_device(bool(config.train.hf.get("use_cpu")))
        loaded = load(
            config.model,
            dtype=infer_dtype(config.model, device),
            attention=ATTENTION[config.model.flash_attn],
            device=device,
        )
        adapters = Adapters.of(config.model)
        names = adapters.names
        model = merge_adapters(loaded.model, adapters.only(names[:-1]))
        if names:  # the last one stays beside the weights: exact, also where the base is in bfloat16
            model = attach_adapter(model, names[-1], adapters).to(device)
        fallback = fallback_template(config.model.model_name_or_path)
        renderer = make_renderer(config.template, loaded.tokenizer, fallback=fallback)
        return cls(model, loaded.tokenizer, renderer, config.generate, use_cache=config.engine.use_kv_cache)

    # ---- the contract ----

    def submit(self, request: Request, sink: Sink) -> _Job:
        if request.adapter is not None:
            raise _unknown_adapter(request.adapter)
        if self._jobs.qsize() >= WAITING:
            raise Overloaded(self._jobs.qsize(), 1.0)
        room = self._room(len(request.prompt), request.sampling)
        job = _Job(request, sink)
        self._jobs.put(lambda: self._answer(job, room))
        return job

    def embed(
        self, prompts: Sequence[Sequence[int]], pooling: Literal["mean", "last"] = "mean", adapter: str | None = None
    ) -> list[list[float]]:
        if adapter is not None:
            raise _unknown_adapter(adapter)
        for prompt in prompts:
            if not prompt or (self.context and len(prompt) > self.context):
                raise _no_room(len(prompt), self.context)
        found: Future[list[list[float]]] = Future()
        self._jobs.put(lambda: _settle(found, lambda: [self._embedding(prompt, pooling) for prompt in prompts]))
        return found.result()

    @property
    def adapters(self) -> tuple[str, ...]:
        return ()

    def load_adapter(self, name: str, path: str) -> None:
        raise UsageError(Problem("E-ENGINE-006", "this engine has no adapters by name", got=name))

    def unload_adapter(self, name: str) -> None:
        raise _unknown_adapter(name)

    def stats(self) -> dict[str, float]:
        return {"waiting": self._jobs.qsize()}

    def close(self) -> None:
        self._closed = True
        self._jobs.put(None)
        self._thread.join()
        del self.model

    # ---- the thread ----

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _answer(self, job: _Job, room: int) -> None:
        try:
            for piece in self._pieces(job, room):
                job.sink(piece)
        except Exception:
            get_logger().exception("a reply ended, as its sink failed")

    def _pieces(self, job: _Job, room: int) -> Iterator[Piece]:
        request = job.request
        reason: FinishReason = "length"
        error: TunesmithError | None = None
        prompt, sampling = request.prompt, request.sampling
        text = ReplyText(Detokenizer(self.tokenizer, skip_special_tokens=sampling.skip_special_tokens), sampling.stop)
        count = 0
        try:
            for token in self._tokens(request, room):
                count += 1
                if token.id in self.renderer.stop_ids:
                    reason = "stop"
                    break
                yield Piece(text.push(token.id), (token,))
                if text.stopped:
                    reason = "stop"
                    break
                if job.cancelled or self._closed:
                    reason = "cancelled"
                    break
        except TunesmithError as failure:
            reason, error = "error", failure
        except Exception as failure:
            reason, error = "error", _failed(failure)
        yield Piece(text.flush(), (), End(reason, len(prompt), 0, count, text.stopped, error))

    def _embedding(self, prompt: Sequence[int], pooling: Literal["mean", "last"]) -> list[float]:
        import torch

        with torch.inference_mode():
            ids = torch.tensor([list(prompt)], device=self.model.device)
            output = self.model(input_ids=ids, use_cache=False, logits_to_keep=1, output_hidden_states=True)
            hidden = output.hidden_states[-1][0].float()  # [T, H]
        found: list[float] = (hidden.mean(dim=0) if pooling == "mean" else hidden[-1]).tolist()
        return found

    # ---- tokens ----

    def decode(self, ids: Sequence[int], sampling: Sampling) -> str:
        text: str = self.tokenizer.decode(
            list(ids),
            skip_special_tokens=sampling.skip_special_tokens,
            clean_up_tokenization_spaces=False,
        )
        return text

    def _tokens(self, request: Request, room: int) -> Iterator[Token]:
        """Of a reply, the stop token included if one is reached."""
        import torch
        from transformers import DynamicCache

        chooser = Chooser(request.sampling, request.prompt, request.constraint, self.renderer.stop_ids)
        ids = torch.tensor([list(request.prompt)], device=self.model.device)  # [1, T]
        cache = DynamicCache(config=self.model.config) if self._use_cache else None
        fresh = ids
        for _ in range(room):
            with torch.inference_mode():
                output = self.model(input_ids=fresh, past_key_values=cache, use_cache=self._use_cache, logits_to_keep=1)
                logits = output.logits[0, -1].float()  # [V]
                if torch.isnan(logits).any():
                    raise _not_finite(str(self.model.config.name_or_path))
                token = chooser.choose(logits)
            yield token
            fresh = torch.tensor([[token.id]], device=ids.device)
            if not self._use_cache:
                ids = fresh = torch.cat([ids, fresh], dim=1)

    def _room(self, prompt_tokens: int, sampling: Sampling) -> int:
        left = self.context - prompt_tokens if self.context else sampling.room(prompt_tokens)
        if left <= 0 or prompt_tokens == 0:
            raise _no_room(prompt_tokens, self.context)
        return min(left, sampling.room(prompt_tokens))


def _settle(future: Future[Any], work: Callable[[], Any]) -> None:
    try:
        future.set_result(work())
    except Exception as error:
        future.set_exception(error)


def _no_room(tokens: int, context: int | None) -> DataError:
    what = "the prompt leaves no room for a reply" if tokens else "the prompt is empty"
    fix = "shorten the conversation (/clear starts a new one)"
    return DataError(Problem("E-ENGINE-002", what, got=f"{tokens} tokens, the model's context is {context}", fix=fix))


def _unknown_adapter(name: str) -> UsageError:
    return UsageError(Problem("E-ENGINE-006", "no adapter of this name is loaded", got=name))


def _failed(error: Exception) -> TunesmithError:
    get_logger().error("a reply ended", exc_info=error)
    return TunesmithError(Problem("E-ENGINE-007", "this reply could not be computed", got=f"{type(error).__name__}"))


def _not_finite(name: str) -> DataError:
    what = "the model computes values that are not finite, so there is nothing to choose a word by"
    fix = "its weights are broken, or too large for infer_dtype: get it again, or use an earlier checkpoint"
    return DataError(Problem("E-ENGINE-003", what, where=name, fix=fix))
