"""The engine of this package: a transformers model that answers many requests at once (`engines.batching`).

Its greedy replies equal those of transformers' `generate`, at any load.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.config.engine import EngineConfig
from tunesmith.engines.base import Engine, Handle, Pair, Request, Score, Sink
from tunesmith.engines.room import no_media, no_room, room_of

if TYPE_CHECKING:
    from tunesmith.config import RunConfig
    from tunesmith.config.generate import GenerateConfig
    from tunesmith.render import Renderer

__all__ = ["HFEngine"]

_KEPT = ("disabled", "fa2", "fa3")
"""Values of flash_attn that ask for an attention by name. The others leave the choice, and ours reads batches."""


class HFEngine(Engine):
    """`settings`: None for the defaults of the config's keys. `one_by_one`: a forward for each request,
    with the attention that the model has, so that not a bit depends on what else runs. `trains`: the model is trained
    on afterwards, so nothing that its modules keep may be of a kind that autograd refuses."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        renderer: Renderer,
        defaults: GenerateConfig,
        settings: EngineConfig | None = None,
        *,
        one_by_one: bool = False,
        trains: bool = False,
    ) -> None:
        import torch

        from tunesmith.engines.batching.adapters import NamedAdapters
        from tunesmith.engines.batching.fitting import Fitted
        from tunesmith.engines.batching.scheduler import Scheduler
        from tunesmith.engines.batching.sight import Readers
        from tunesmith.models.rope import context_of

        settings = settings or EngineConfig()
        mode = torch.no_grad if trains else torch.inference_mode
        self.model = model.eval()
        self.tokenizer, self.renderer, self.defaults = tokenizer, renderer, defaults
        self.at_once, self._chunk = settings.max_batch_requests, settings.prefill_chunk_tokens
        self._adapters = NamedAdapters(self.model)
        self._readers = Readers(renderer.media) if renderer.media is not None else None
        sees = self._readers is not None
        self._fitted = Fitted(self.model, self._adapters, settings, mode, one_by_one=one_by_one, sees=sees)
        self._longest = context_of(self._fitted.bare.config)
        self.context = min((limit for limit in (self._longest, self._fitted.budget) if limit), default=None)
        self._name = str(self._fitted.bare.config.name_or_path)
        limits = self.at_once, settings.max_queued_requests
        runner, device = self._fitted.runner, self._fitted.device
        self._scheduler = Scheduler(runner, device, *limits, self._name, mode, self._readers)

    @classmethod
    def from_config(cls, config: RunConfig) -> HFEngine:
        from tunesmith.media.limits import MediaLimits
        from tunesmith.methods.base import Adapters
        from tunesmith.methods.merge import attach_adapter, merge_adapters
        from tunesmith.methods.towers import is_of_text_alone
        from tunesmith.models.catalog import fallback_template
        from tunesmith.models.load import ATTENTION, infer_dtype, language_type, load, settings_of
        from tunesmith.models.machine import pick_device
        from tunesmith.models.media import load_media
        from tunesmith.models.quantization.plan import base_of
        from tunesmith.models.tokenizer import load_tokenizer
        from tunesmith.render import make_renderer

        device = pick_device(bool(config.train.hf.get("use_cpu")))
        tokenizer = load_tokenizer(config.model)
        adapters = Adapters.of(config.model)
        media = load_media(config.model, MediaLimits.of(config.media), tokenizer)
        if media is not None and adapters.names and language_type(config.model) != settings_of(config.model).model_type:
            # Of such a model the text part is loaded alone where no media are trained on, and adapters are of that.
            media = None if is_of_text_alone(adapters.names[0], adapters) else media
        loaded = load(
            config.model,
            tokenizer,
            dtype=infer_dtype(config.model, device),
            attention=ATTENTION[config.model.flash_attn],
            device=device,
            quantization=base_of(config, device),
            media=media is not None,
        )
        names = adapters.names
        model = merge_adapters(loaded.model, adapters.only(names[:-1]))
        if names:  # the last one stays beside the weights: exact, also where the base is in bfloat16
            model = attach_adapter(model, names[-1], adapters)  # PEFT puts it where the weights are
        fallback = fallback_template(config.model.model_name_or_path)
        renderer = make_renderer(config.template, loaded.tokenizer, fallback=fallback, media=media)
        kept = config.model.flash_attn in _KEPT
        return cls(model, loaded.tokenizer, renderer, config.generate, config.engine, one_by_one=kept)

    # ---- the contract ----

    def submit(self, request: Request, sink: Sink) -> Handle:
        from tunesmith.engines.batching.job import Job

        self._check_adapter(request.adapter)
        if request.media and self._readers is None:
            raise no_media(request)
        room = room_of(request, self.context)
        job = Job(request, sink, self.tokenizer, self.renderer.stop_ids, room)
        self._scheduler.submit(job)
        return job

    def embed(
        self, prompts: Sequence[Sequence[int]], pooling: Literal["mean", "last"] = "mean", adapter: str | None = None
    ) -> list[list[float]]:
        self._check_adapter(adapter)
        for prompt in prompts:
            if not prompt or (self.context and len(prompt) > self.context):
                raise no_room(len(prompt), self.context)
        # One at a time, so that replies go on between them.
        return [self._scheduler.call(partial(self._embedding, prompt, pooling, adapter)) for prompt in prompts]

    def _embedding(self, prompt: Sequence[int], pooling: Literal["mean", "last"], adapter: str | None) -> list[float]:
        import torch

        inputs: dict[str, Any] = {"input_ids": torch.tensor([list(prompt)], device=self._fitted.device)}
        inputs |= {"use_cache": False, "logits_to_keep": 1, "output_hidden_states": True}
        hidden = self._adapters([adapter], inputs, flat=False).hidden_states[-1][0].float()  # [T, H]
        found: list[float] = (hidden.mean(dim=0) if pooling == "mean" else hidden[-1]).tolist()
        return found

    def score(self, pairs: Sequence[Pair], adapter: str | None = None) -> list[Score]:
        from tunesmith.engines.batching.scoring import check_pairs, score_slice, slices

        self._check_adapter(adapter)
        check_pairs(pairs, self._longest)  # nothing is kept of them
        found: dict[int, Score] = {}
        for own in slices(pairs, self._chunk):  # so that replies go on between them
            how = (self._fitted.runner, self._fitted.device, self._name, pairs, own, adapter)
            found |= self._scheduler.call(partial(score_slice, *how))
        return [found[number] for number in range(len(pairs))]

    @property
    def adapters(self) -> tuple[str, ...]:
        return self._adapters.names

    def load_adapter(self, name: str, path: str) -> None:
        self._scheduler.call(lambda: self._adapters.load(name, path))

    def unload_adapter(self, name: str) -> None:
        self._scheduler.call(lambda: self._unload(name))

    def _unload(self, name: str) -> None:
        self._check_adapter(name)
        self._scheduler.end_adapter(name)
        self._adapters.unload(name)

    def _check_adapter(self, name: str | None) -> None:
        from tunesmith.engines.batching.adapters import unknown_adapter

        if name is not None and name not in self._adapters.names:
            raise unknown_adapter(name)

    def stats(self) -> dict[str, float]:
        return self._scheduler.stats()

    def close(self) -> None:
        """The model is as it was, for those who still hold it. Conversations share an engine, and each closes it."""
        if not hasattr(self, "_fitted"):
            return
        self._scheduler.close()
        if self._readers is not None:
            self._readers.close()
        self._fitted.undo()
        del self.model, self._adapters, self._fitted
