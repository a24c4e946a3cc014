"""vLLM as an engine: its AsyncLLM in this process, token ids in and out. Checked against the source of vLLM 0.33.

vLLM has its own template, defaults and stop tokens; none of them are used.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.core.errors import Problem, UsageError
from tunesmith.engines.base import Constraint, Request, Sampling, Score, Token
from tunesmith.engines.outside import (
    OutsideEngine,
    Parts,
    Step,
    adapters_of,
    not_installed,
    parts_of,
    refused,
    started,
)

if TYPE_CHECKING:
    from tunesmith.config import RunConfig

__all__ = ["VLLMEngine", "as_sampling"]

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""That vLLM can be set up for."""
_OURS = ("model", "max_model_len", "logprobs_mode", "structured_outputs_config", "generation_config", "enable_lora")
"""Arguments that this module decides."""
_SAME = "top_p top_k min_p repetition_penalty presence_penalty frequency_penalty logprobs seed"
_MADE_HERE = ("do_sample", "temperature", "max_new_tokens", "max_length", "skip_special_tokens", "stop", "logit_bias")
"""Fields of `Sampling` that are not passed on under their name: text is made here, and the rest is in other words."""


def as_sampling(sampling: Sampling, room: int, stop_ids: Iterable[int]) -> dict[str, Any]:
    """Arguments of vLLM's SamplingParams."""
    found: dict[str, Any] = {name: getattr(sampling, name) for name in _SAME.split()}
    found |= {
        "temperature": 0.0 if sampling.greedy else sampling.temperature,
        "max_tokens": room,
        "logit_bias": dict(sampling.logit_bias) or None,
        "ignore_eos": True,  # the renderer's stop tokens, and no others
        "stop_token_ids": list(stop_ids),
        "detokenize": False,
    }
    return found


class VLLMEngine(OutsideEngine):
    """`arguments`: of AsyncEngineArgs."""

    name = "vllm"

    def __init__(self, parts: Parts, arguments: Mapping[str, Any]) -> None:
        try:
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError as error:
            raise not_installed("vllm", error) from error
        self._numbered = itertools.count(1)
        self._llm = started(
            "vllm", lambda **given: AsyncLLM.from_engine_args(AsyncEngineArgs(**given)), dict(arguments)
        )
        super().__init__(parts, arguments["max_model_len"])

    @classmethod
    def from_config(cls, config: RunConfig) -> VLLMEngine:
        parts, engine = parts_of(config), config.engine
        try:
            import torch
            from vllm.config import StructuredOutputsConfig
        except ImportError as error:
            raise not_installed("vllm", error) from error
        given = dict(engine.vllm_config or {})
        if taken := [name for name in given if name in _OURS]:
            what = f"vllm_config cannot set {', '.join(taken)}"
            fix = "vllm_maxlen is the longest context; the other ones follow from the rest of the config"
            raise UsageError(Problem("E-ENGINE-032", what, config.place("vllm_config"), fix=fix))
        count = adapters_of(config)
        arguments = {
            "model": parts.path,
            "max_model_len": engine.vllm_maxlen,
            "gpu_memory_utilization": engine.vllm_gpu_util,
            "enforce_eager": engine.vllm_enforce_eager,
            "max_num_seqs": parts.at_once,
            "dtype": config.model.infer_dtype,
            "trust_remote_code": config.model.trust_remote_code,
            "tensor_parallel_size": torch.cuda.device_count() or 1,
            "logprobs_mode": "raw_logprobs",
            "generation_config": "vllm",
            "structured_outputs_config": StructuredOutputsConfig(backend="guidance"),
            "disable_log_stats": True,
            "enable_lora": count > 0,
        }
        if count:
            rank = next((rank for rank in _RANKS if rank >= engine.vllm_max_lora_rank), _RANKS[-1])
            arguments |= {"max_loras": count, "max_lora_rank": rank}
        return cls(parts, {**arguments, **given})

    def _asked(self, request: Request, room: int) -> Any:
        from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

        found = as_sampling(request.sampling, room, self.renderer.stop_ids)
        if request.constraint is not None:
            found["structured_outputs"] = StructuredOutputsParams(grammar=_grammar(request.constraint))
        try:
            return SamplingParams(**found, output_kind=RequestOutputKind.DELTA)
        except Exception as error:  # vLLM's own errors of values have no base in the standard library
            raise refused("vllm", "this way of drawing tokens", str(error)) from error

    async def _steps(self, asked: Any, prompt: list[int], adapter: Any, name: str) -> AsyncGenerator[Step]:
        from vllm import TokensPrompt

        answers = self._llm.generate(TokensPrompt(prompt_token_ids=prompt), asked, name, lora_request=adapter)
        try:
            async for answer in answers:
                (output,) = answer.outputs
                reason: Literal["stop", "length"] | None = None
                if output.finish_reason is not None:
                    reason = "length" if output.finish_reason == "length" else "stop"
                told = output.logprobs or [None] * len(output.token_ids)
                tokens = [_token(*one, asked.logprobs) for one in zip(output.token_ids, told, strict=True)]
                yield Step(tokens, answer.num_cached_tokens or 0, reason)
        finally:
            await answers.aclose()  # which aborts what has not ended

    async def _score(self, prompt: list[int], continuation: list[int], adapter: Any, name: str) -> Score:
        from vllm import TokensPrompt
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        kind = RequestOutputKind.FINAL_ONLY
        asked = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False, output_kind=kind)
        ids = [*prompt, *continuation]
        told: Any = None
        async for answer in self._llm.generate(TokensPrompt(prompt_token_ids=ids), asked, name, lora_request=adapter):
            told = answer.prompt_logprobs or told
        own = [places[token] for token, places in zip(continuation, told[len(prompt) :], strict=True)]
        return Score(tuple(float(one.logprob) for one in own), all(one.rank == 1 for one in own))

    async def _load(self, name: str, path: str) -> Any:
        from vllm.lora.request import LoRARequest

        number = next(self._numbered)
        adapter = LoRARequest(lora_name=name or "default", lora_int_id=number, lora_path=path)
        if not await self._llm.add_lora(adapter):
            raise ValueError("it was not added")
        return adapter

    async def _unload(self, adapter: Any) -> None:
        await self._llm.remove_lora(adapter.lora_int_id)

    def _shut_down(self) -> None:
        self._llm.shutdown()


def _grammar(constraint: Constraint) -> str:
    """The grammar of llguidance that a constraint stands for. Raises UsageError where it stands for none alone."""
    lark: str | None = getattr(constraint, "lark", None)
    if lark is None:
        raise refused("vllm", "this constraint", "only what a grammar says of the whole reply can be passed on")
    return lark


def _token(token: int, told: Mapping[int, Any] | None, most: int | None) -> Token:
    """`told`: of the chosen token, and of the likeliest ones."""
    if told is None or most is None:
        return Token(token)
    best = sorted((one.rank, other, float(one.logprob)) for other, one in told.items())
    top = tuple((other, logprob) for rank, other, logprob in best if rank <= most)
    return Token(token, float(told[token].logprob), top)
