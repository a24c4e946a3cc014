"""Generation in plain PyTorch with a transformers model, one request at a time, with a key-value cache.

The choice of the next token goes through transformers' own logits processors, so a greedy reply equals `generate`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.types import Message
from tunesmith.engines.base import Engine, Reply, Sampling
from tunesmith.engines.detokenize import Detokenizer

if TYPE_CHECKING:
    import torch
    from transformers import LogitsProcessorList

    from tunesmith.config import RunConfig
    from tunesmith.config.generate import GenerateConfig
    from tunesmith.render import Renderer

__all__ = ["HFEngine"]


class HFEngine(Engine):
    def __init__(
        self, model: Any, tokenizer: Any, renderer: Renderer, defaults: GenerateConfig, *, use_cache: bool = True
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.renderer = renderer
        self._defaults = defaults
        self._use_cache = use_cache

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

    def generate(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), **sampling: Any) -> Reply:
        settings = Sampling.of(self._defaults, **sampling)
        prompt = self.renderer.encode_prompt(messages, tools)
        ids = list(self.generate_ids(prompt, settings))
        stopped = bool(ids) and ids[-1] in self.renderer.stop_ids
        text = self.decode(ids[:-1] if stopped else ids, settings)
        reason = "stop" if stopped else "length"
        return Reply(self.renderer.parse(text), text, reason, len(prompt), len(ids))

    def stream(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), **sampling: Any
    ) -> Iterator[str]:
        settings = Sampling.of(self._defaults, **sampling)
        prompt = self.renderer.encode_prompt(messages, tools)
        detokenizer = Detokenizer(self.tokenizer, skip_special_tokens=settings.skip_special_tokens)
        for token in self.generate_ids(prompt, settings):
            if token in self.renderer.stop_ids:
                break
            if piece := detokenizer.push(token):
                yield piece
        if rest := detokenizer.flush():
            yield rest

    def close(self) -> None:
        del self.model

    # ---- tokens ----

    def decode(self, ids: Sequence[int], sampling: Sampling) -> str:
        text: str = self.tokenizer.decode(
            list(ids),
            skip_special_tokens=sampling.skip_special_tokens,
            clean_up_tokenization_spaces=False,
        )
        return text

    def generate_ids(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[int]:
        """Ids of a reply to `prompt`, the stop token included if one is reached.

        Raises DataError if the prompt leaves no room in the model's context.
        """
        import torch
        from transformers import DynamicCache

        room = self._room(len(prompt), sampling)
        processors = _processors(sampling)
        device = self.model.device
        generator = torch.Generator(device)
        if sampling.seed is None:
            generator.seed()
        else:
            generator.manual_seed(sampling.seed)
        ids = torch.tensor([list(prompt)], device=device)  # [1, T]
        cache = DynamicCache(config=self.model.config) if self._use_cache else None
        fresh = ids
        for _ in range(room):
            with torch.inference_mode():
                output = self.model(input_ids=fresh, past_key_values=cache, use_cache=self._use_cache, logits_to_keep=1)
                logits = output.logits[:, -1].float()  # [1, V]
                if torch.isnan(logits).any():
                    raise _not_finite(str(self.model.config.name_or_path))
                token = _choose(processors(ids, logits), sampling, generator)
            ids = torch.cat([ids, token], dim=1)
            fresh = token if self._use_cache else ids
            yield int(token)
            if int(token) in self.renderer.stop_ids:
                return

    def _room(self, prompt_tokens: int, sampling: Sampling) -> int:
        context = getattr(self.model.config, "max_position_embeddings", None)
        left = context - prompt_tokens if context else sampling.room(prompt_tokens)
        if left <= 0 or prompt_tokens == 0:
            raise DataError(
                Problem(
                    "E-ENGINE-002",
                    "the prompt leaves no room for a reply" if prompt_tokens else "the prompt is empty",
                    got=f"{prompt_tokens} tokens, the model's context is {context}",
                    fix="shorten the conversation (/clear starts a new one)",
                )
            )
        return min(left, sampling.room(prompt_tokens))


def _not_finite(name: str) -> DataError:
    what = "the model computes values that are not finite, so there is nothing to choose a word by"
    fix = "its weights are broken, or too large for infer_dtype: get it again, or use an earlier checkpoint"
    return DataError(Problem("E-ENGINE-003", what, where=name, fix=fix))


def _processors(sampling: Sampling) -> LogitsProcessorList:
    """What transformers' `generate` would apply, in its order."""
    from transformers import (
        LogitsProcessorList,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    chain = LogitsProcessorList()
    if sampling.repetition_penalty != 1.0:
        chain.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.do_sample and sampling.temperature > 0:
        if sampling.temperature != 1.0:
            chain.append(TemperatureLogitsWarper(sampling.temperature))
        if sampling.top_k > 0:
            chain.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1.0:
            chain.append(TopPLogitsWarper(sampling.top_p))
    return chain


def _choose(scores: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> torch.Tensor:
    """scores [1, V] -> token [1, 1]. A temperature of 0 is greedy."""
    import torch

    if not sampling.do_sample or sampling.temperature == 0:
        return scores.argmax(dim=-1, keepdim=True)
    return torch.multinomial(scores.softmax(dim=-1), 1, generator=generator)
