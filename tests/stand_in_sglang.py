"""The parts of SGLang that the engine uses, under their names, over a small model of transformers.

Names, arguments and limits are those of SGLang 0.5.23 (`tests/contracts/test_outside_names.py` compares them); whatever
is written differently fails here.
Tokens come from real logits: the likeliest one where the temperature is 0, else one drawn with the seed.
"""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import AsyncGenerator
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import pytest
import torch


@dataclass(kw_only=True)
class _Sampling:
    max_new_tokens: int = 128
    stop_token_ids: list[int] | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    ignore_eos: bool = False
    logit_bias: dict[str, float] | None = None
    sampling_seed: int | None = None

    def __post_init__(self) -> None:
        assert 0 < self.top_p <= 1, "top_p"
        assert self.top_k == -1 or self.top_k >= 1, "top_k"
        assert all(isinstance(token, str) for token in self.logit_bias or ()), "logit_bias"


@dataclass(kw_only=True)
class _ServerArgs:
    model_path: str
    context_length: int | None = None
    mem_fraction_static: float | None = None
    tp_size: int = 1
    max_running_requests: int | None = None
    dtype: str = "auto"
    trust_remote_code: bool = False
    skip_tokenizer_init: bool = False
    incremental_streaming_output: bool = False
    enable_lora: bool | None = None
    lora_backend: str = "csgmv"
    max_loras_per_batch: int = 8
    lora_target_modules: list[str] | None = None
    max_lora_rank: int | None = None
    enable_deterministic_inference: bool = False
    random_seed: int | None = None
    log_level: str = "error"

    def __post_init__(self) -> None:
        if self.lora_backend not in ("triton", "csgmv", "ascend", "torch_native", "triton_v2"):
            raise ValueError(f"no such LoRA backend: {self.lora_backend}")


@dataclass
class _LoRAUpdate:
    success: bool
    error_message: str | None = None


class _TokenizerManager:
    def __init__(self) -> None:
        self.aborted: list[str] = []

    def abort_request(self, rid: str = "", abort_all: bool = False) -> None:
        self.aborted.append(rid)


class Engine:
    """`made`: all of them; `asked`: of each, for tests to look at."""

    made: ClassVar[list[Engine]] = []
    pause = 0.0

    def __init__(self, **kwargs: Any) -> None:
        from transformers import AutoModelForCausalLM

        self.args = _ServerArgs(**kwargs)
        assert self.args.skip_tokenizer_init
        self.model: Any = AutoModelForCausalLM.from_pretrained(self.args.model_path, dtype=torch.float32).eval()
        self.loras: dict[str, Any] = {}
        self.tokenizer_manager = _TokenizerManager()
        self.asked: list[tuple[_Sampling, str | None]] = []
        self.closed = False
        Engine.made.append(self)

    async def async_generate(
        self,
        prompt: str | None = None,
        sampling_params: dict[str, Any] | None = None,
        input_ids: list[int] | None = None,
        return_logprob: bool = False,
        logprob_start_len: int | None = None,
        top_logprobs_num: int | None = None,
        lora_path: str | None = None,
        stream: bool = False,
        rid: str | None = None,
    ) -> Any:
        assert prompt is None
        assert input_ids is not None
        assert rid
        assert set(sampling_params or {}) <= {field.name for field in fields(_Sampling)}
        params = _Sampling(**(sampling_params or {}))
        assert params.sampling_seed is None or self.args.enable_deterministic_inference, "a seed that does not count"
        self.asked.append((params, lora_path))
        chunks = self._chunks(list(input_ids), params, lora_path, return_logprob, top_logprobs_num or 0)
        if stream:
            return chunks
        last: dict[str, Any] = [chunk async for chunk in chunks][-1]
        if logprob_start_len is not None:
            logits = self._logits(list(input_ids), lora_path).log_softmax(-1)
            places = range(logprob_start_len, len(input_ids))
            own = [(None if p == 0 else float(logits[p - 1, input_ids[p]]), input_ids[p], None) for p in places]
            best = [[(float(logits[p - 1].max()), int(logits[p - 1].argmax()), None)] if p else None for p in places]
            last["meta_info"] |= {"input_token_logprobs": own, "input_top_logprobs": best}
        return last

    def _logits(self, ids: list[int], lora: str | None) -> torch.Tensor:
        model = self.loras[lora] if lora else self.model
        with torch.inference_mode():
            found: torch.Tensor = model(torch.tensor([ids])).logits[0].float()
        return found

    async def _chunks(
        self, ids: list[int], params: _Sampling, lora: str | None, logprob: bool, top: int
    ) -> AsyncGenerator[dict[str, Any], None]:
        size, how = len(ids), None
        generator = torch.Generator().manual_seed(params.sampling_seed or 0)
        while how is None:
            await asyncio.sleep(Engine.pause)
            logits = self._logits(ids, lora)[-1]
            scores = logits.clone()
            for token, bias in (params.logit_bias or {}).items():
                scores[int(token)] += bias
            if params.temperature == 0:
                chosen = int(scores.argmax())
            else:
                chosen = int(torch.multinomial((scores / params.temperature).softmax(-1), 1, generator=generator))
            ids.append(chosen)
            if chosen in (params.stop_token_ids or ()):
                how = {"type": "stop", "matched": chosen}
            elif len(ids) - size >= params.max_new_tokens:
                how = {"type": "length", "length": params.max_new_tokens}
            about: dict[str, Any] = {"finish_reason": how, "prompt_tokens": size, "cached_tokens": 2}
            if logprob:
                logprobs = logits.log_softmax(-1)
                likely = logprobs.topk(top)
                told = list(zip(likely.values.tolist(), likely.indices.tolist(), [None] * top, strict=True))
                about["output_token_logprobs"] = [(float(logprobs[chosen]), chosen, None)]
                about["output_top_logprobs"] = [told] if top else None
            yield {"output_ids": [chosen], "meta_info": about}

    async def async_load_lora_adapter(self, lora_name: str, lora_path: str, pinned: bool = False) -> _LoRAUpdate:
        from peft import PeftConfig, PeftModel
        from transformers import AutoModelForCausalLM

        rank = PeftConfig.from_pretrained(lora_path).r  # type: ignore[attr-defined]
        if rank > (self.args.max_lora_rank or 0):
            return _LoRAUpdate(False, f"rank {rank} is too large")
        base = AutoModelForCausalLM.from_pretrained(self.args.model_path, dtype=torch.float32)
        self.loras[lora_name] = PeftModel.from_pretrained(base, lora_path).eval()
        return _LoRAUpdate(True)

    async def async_unload_lora_adapter(self, lora_name: str) -> _LoRAUpdate:
        del self.loras[lora_name]
        return _LoRAUpdate(True)

    def shutdown(self) -> None:
        self.closed = True


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the package were there."""
    Engine.made.clear()
    monkeypatch.setattr(Engine, "pause", 0.0)
    module = types.ModuleType("sglang")
    module.Engine = Engine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sglang", module)
