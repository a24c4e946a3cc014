"""The parts of vLLM that the engine uses, under their names, over a small model of transformers.

Names, arguments and limits are those of vLLM 0.33 (`tests/contracts/test_outside_names.py` compares them); whatever is
written differently fails here.
Tokens come from real logits: the likeliest one where the temperature is 0, else one drawn with the seed.
"""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

import pytest
import torch


class VLLMValidationError(Exception):
    """Theirs has no base in the standard library either."""


class RequestOutputKind(Enum):
    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


@dataclass
class StructuredOutputsParams:
    json: str | None = None
    regex: str | None = None
    grammar: str | None = None


@dataclass
class StructuredOutputsConfig:
    backend: str = "auto"


@dataclass(kw_only=True)
class SamplingParams:
    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    structured_outputs: StructuredOutputsParams | None = None
    logit_bias: dict[int, float] | None = None

    def __post_init__(self) -> None:
        checks = {
            "temperature": 0 <= self.temperature <= 2,
            "top_p": 0 < self.top_p <= 1,
            "top_k": self.top_k >= -1,
            "min_p": 0 <= self.min_p <= 1,
            "presence_penalty": -2 <= self.presence_penalty <= 2,
            "frequency_penalty": -2 <= self.frequency_penalty <= 2,
            "max_tokens": self.max_tokens is None or self.max_tokens >= 1,
            "stop": self.detokenize or not self.stop,
            "logprobs": self.logprobs is None or 0 <= self.logprobs <= 20,
        }
        for name, good in checks.items():
            if not good:
                raise VLLMValidationError(f"{name} is out of range: {getattr(self, name)}")


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclass
class RequestOutput:
    request_id: str
    prompt_logprobs: list[dict[int, Logprob] | None] | None
    outputs: list[CompletionOutput]
    finished: bool
    num_cached_tokens: int | None = None


class TokensPrompt(dict[str, Any]):
    pass


@dataclass
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str = ""

    def __post_init__(self) -> None:
        assert self.lora_int_id > 0
        assert self.lora_path


@dataclass(kw_only=True)
class AsyncEngineArgs:
    model: str
    max_model_len: int | None = None
    gpu_memory_utilization: float = 0.92
    enforce_eager: bool = False
    max_num_seqs: int | None = None
    dtype: str = "auto"
    trust_remote_code: bool = False
    tensor_parallel_size: int = 1
    logprobs_mode: str = "raw_logprobs"
    generation_config: str = "auto"
    structured_outputs_config: StructuredOutputsConfig = field(default_factory=StructuredOutputsConfig)
    disable_log_stats: bool = False
    enable_lora: bool = False
    max_loras: int = 1
    max_lora_rank: int = 16
    enable_prefix_caching: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        assert self.max_lora_rank in (1, 8, 16, 32, 64, 128, 256, 320, 512)
        assert isinstance(self.structured_outputs_config, StructuredOutputsConfig)


def _all(logits: torch.Tensor, wanted: set[int]) -> dict[int, Logprob]:
    logprobs = logits.float().log_softmax(-1)
    return {token: Logprob(float(logprobs[token]), int((logprobs > logprobs[token]).sum()) + 1) for token in wanted}


class AsyncLLM:
    """`made`: all of them; `asked` and `aborted`: of each, for tests to look at."""

    made: ClassVar[list[AsyncLLM]] = []
    pause = 0.0

    def __init__(self, args: AsyncEngineArgs) -> None:
        from transformers import AutoModelForCausalLM

        self.args = args
        self.model: Any = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
        self.loras: dict[int, Any] = {}
        self.asked: list[tuple[SamplingParams, LoRARequest | None]] = []
        self.aborted: list[str] = []
        self.closed = False
        AsyncLLM.made.append(self)

    @classmethod
    def from_engine_args(cls, engine_args: AsyncEngineArgs) -> AsyncLLM:
        return cls(engine_args)

    def _logits(self, ids: list[int], lora: LoRARequest | None) -> torch.Tensor:
        model = self.loras[lora.lora_int_id] if lora else self.model
        with torch.inference_mode():
            found: torch.Tensor = model(torch.tensor([ids])).logits[0].float()
        return found

    async def generate(
        self,
        prompt: TokensPrompt,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        lora_request: LoRARequest | None = None,
    ) -> AsyncGenerator[RequestOutput, None]:
        params, ids = sampling_params, list(prompt["prompt_token_ids"])
        assert params.output_kind is not RequestOutputKind.CUMULATIVE, "the engine wants what is new"
        assert self.args.max_model_len is None or len(ids) < self.args.max_model_len
        self.asked.append((params, lora_request))
        about_prompt = self._about_prompt(ids, params, lora_request)
        generator = torch.Generator().manual_seed(params.seed or 0)
        size, finished = len(ids), False
        try:
            while not finished:
                await asyncio.sleep(AsyncLLM.pause)
                logits = self._logits(ids, lora_request)[-1]
                token = _pick(logits, params, generator)
                ids.append(token)
                reason = "stop" if token in (params.stop_token_ids or ()) else None
                if reason is None and len(ids) - size >= (params.max_tokens or 0):
                    reason = "length"
                finished = reason is not None
                told = None
                if params.logprobs is not None:
                    told = [_all(logits, {token, *logits.topk(params.logprobs).indices.tolist()})]
                output = CompletionOutput(0, "", [token], None, told, reason)
                if finished or params.output_kind is RequestOutputKind.DELTA:
                    yield RequestOutput(request_id, about_prompt, [output], finished, 2)
        except (asyncio.CancelledError, GeneratorExit):
            self.aborted.append(request_id)
            raise

    def _about_prompt(
        self, ids: list[int], params: SamplingParams, lora: LoRARequest | None
    ) -> list[dict[int, Logprob] | None] | None:
        if params.prompt_logprobs is None:
            return None
        logits = self._logits(ids, lora)
        return [None, *(_all(row, {token}) for row, token in zip(logits, ids[1:], strict=False))]

    async def add_lora(self, lora_request: LoRARequest) -> bool:
        from peft import PeftConfig, PeftModel
        from transformers import AutoModelForCausalLM

        assert self.args.enable_lora, "LoRA is not enabled"
        rank = PeftConfig.from_pretrained(lora_request.lora_path).r  # type: ignore[attr-defined]
        if rank > self.args.max_lora_rank:
            raise ValueError(f"LoRA rank {rank} is greater than max_lora_rank {self.args.max_lora_rank}.")
        base = AutoModelForCausalLM.from_pretrained(self.args.model, dtype=torch.float32)
        self.loras[lora_request.lora_int_id] = PeftModel.from_pretrained(base, lora_request.lora_path).eval()
        return True

    async def remove_lora(self, lora_id: int) -> bool:
        return self.loras.pop(lora_id, None) is not None

    def shutdown(self, timeout: float | None = None) -> None:
        self.closed = True


def _pick(logits: torch.Tensor, params: SamplingParams, generator: torch.Generator) -> int:
    scores = logits.clone()
    for token, bias in (params.logit_bias or {}).items():
        scores[token] += bias
    if params.temperature == 0:
        return int(scores.argmax())
    return int(torch.multinomial((scores / params.temperature).softmax(-1), 1, generator=generator))


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the package were there."""
    modules: dict[str, dict[str, Any]] = {
        "vllm": {"TokensPrompt": TokensPrompt},
        "vllm.config": {"StructuredOutputsConfig": StructuredOutputsConfig},
        "vllm.engine": {},
        "vllm.engine.arg_utils": {"AsyncEngineArgs": AsyncEngineArgs},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": LoRARequest},
        "vllm.sampling_params": {
            "RequestOutputKind": RequestOutputKind,
            "SamplingParams": SamplingParams,
            "StructuredOutputsParams": StructuredOutputsParams,
        },
        "vllm.v1": {},
        "vllm.v1.engine": {},
        "vllm.v1.engine.async_llm": {"AsyncLLM": AsyncLLM},
    }
    AsyncLLM.made.clear()
    monkeypatch.setattr(AsyncLLM, "pause", 0.0)
    for name, things in modules.items():
        module = types.ModuleType(name)
        module.__path__ = []
        for thing, value in things.items():
            setattr(module, thing, value)
        monkeypatch.setitem(sys.modules, name, module)
