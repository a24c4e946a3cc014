"""SGLang as an engine: its offline Engine in this process, token ids in and out. Checked against the source of 0.5.23.

Three of its ways are not those of the contract, so what depends on them is refused: seeds count in its deterministic
mode alone, its repetition penalty passes the prompt over, and log probabilities are those after bias and penalties.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.core import env
from tunesmith.core.errors import Problem, TunesmithError, UsageError
from tunesmith.engines.base import Request, Sampling, Score, Token
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

__all__ = ["SGLangEngine", "as_sampling"]

_OURS = ("model_path", "context_length", "skip_tokenizer_init", "incremental_streaming_output", "enable_lora")
"""Arguments that this module decides."""
_SAME = "top_p min_p presence_penalty frequency_penalty"
_MADE_HERE = (
    "do_sample",
    "temperature",
    "top_k",
    "repetition_penalty",
    "max_new_tokens",
    "max_length",
    "skip_special_tokens",
    "seed",
    "logit_bias",
    "stop",
    "logprobs",
)
"""Fields of `Sampling` that are not passed on under their name and meaning."""


def as_sampling(sampling: Sampling, room: int, stop_ids: Iterable[int], *, seeded: bool) -> dict[str, Any]:
    """SGLang's sampling parameters. `seeded`: seeds count. Raises UsageError (E-ENGINE-031)."""
    if sampling.repetition_penalty != 1.0:
        raise refused("sglang", "repetition_penalty", "its own does not look at the prompt")
    if sampling.seed is not None and not sampling.greedy and not seeded:
        raise refused("sglang", "a seed", "seeds count with sglang_config: {enable_deterministic_inference: true} only")
    if sampling.logprobs is not None and (
        sampling.logit_bias or sampling.presence_penalty or sampling.frequency_penalty
    ):
        raise refused("sglang", "log probabilities beside bias or penalties", "its own are those behind them")
    found: dict[str, Any] = {name: getattr(sampling, name) for name in _SAME.split()}
    found |= {
        "temperature": 0.0 if sampling.greedy else sampling.temperature,
        "top_k": sampling.top_k or -1,
        "max_new_tokens": room,
        "stop_token_ids": list(stop_ids),
        "ignore_eos": True,  # the renderer's stop tokens, and no others
        "logit_bias": {str(token): bias for token, bias in sampling.logit_bias.items()} or None,
    }
    if seeded:  # without one every request would have the same
        found["sampling_seed"] = secrets.randbits(63) if sampling.seed is None else sampling.seed
    return found


class SGLangEngine(OutsideEngine):
    """`arguments`: of sglang.Engine."""

    name = "sglang"

    def __init__(self, parts: Parts, arguments: Mapping[str, Any]) -> None:
        # Read when it is imported: log probabilities before the temperature.
        env.override("SGLANG_RETURN_ORIGINAL_LOGPROB", "1")
        try:
            from sglang import Engine as Offline
        except ImportError as error:
            raise not_installed("sglang", error) from error
        self._seeded = bool(arguments.get("enable_deterministic_inference"))
        self._offline = started("sglang", Offline, dict(arguments))
        super().__init__(parts, arguments["context_length"])

    @classmethod
    def from_config(cls, config: RunConfig) -> SGLangEngine:
        import torch

        parts, engine = parts_of(config), config.engine
        given = dict(engine.sglang_config or {})
        if taken := [name for name in given if name in _OURS]:
            what = f"sglang_config cannot set {', '.join(taken)}"
            fix = "sglang_maxlen is the longest context; the other ones follow from the rest of the config"
            raise UsageError(Problem("E-ENGINE-032", what, config.place("sglang_config"), fix=fix))
        arguments: dict[str, Any] = {
            "model_path": parts.path,
            "context_length": engine.sglang_maxlen,
            "mem_fraction_static": engine.sglang_mem_fraction,
            "tp_size": engine.sglang_tp_size if engine.sglang_tp_size > 0 else torch.cuda.device_count() or 1,
            "max_running_requests": parts.at_once,
            "dtype": config.model.infer_dtype,
            "trust_remote_code": config.model.trust_remote_code,
            "skip_tokenizer_init": True,  # ids in, ids out
            "incremental_streaming_output": True,
        }
        if count := adapters_of(config):
            # Adapters come later, so that their names and errors are ours: their shapes have to be known before.
            arguments |= {"enable_lora": True, "lora_backend": engine.sglang_lora_backend}
            arguments |= {"max_loras_per_batch": count + 1, "lora_target_modules": ["all"], "max_lora_rank": 64}
        return cls(parts, {**arguments, **given})

    def _asked(self, request: Request, room: int) -> Any:
        if request.constraint is not None:
            raise refused("sglang", "a constraint on the reply", "its grammars are in another notation")
        sampling = request.sampling
        found = as_sampling(sampling, room, self.renderer.stop_ids, seeded=self._seeded)
        return {"sampling_params": found, **_logprobs(sampling.logprobs)}

    async def _steps(self, asked: Any, prompt: list[int], adapter: Any, name: str) -> AsyncGenerator[Step]:
        answers = await self._offline.async_generate(
            input_ids=prompt, stream=True, rid=name, lora_path=adapter, **asked
        )
        ended = False
        try:
            async for answer in answers:
                about = answer["meta_info"]
                how = about["finish_reason"]
                ended = how is not None
                tokens = [
                    Token(token, *told)
                    for token, told in zip(answer["output_ids"], _told(about, len(answer["output_ids"])), strict=True)
                ]
                if ended and how["type"] == "abort":
                    problem = Problem("E-ENGINE-007", "this reply could not be computed", got=str(how.get("message")))
                    raise TunesmithError(problem)
                reason: Literal["stop", "length"] | None = None
                if ended:
                    reason = "length" if how["type"] == "length" else "stop"
                yield Step(tokens, about.get("cached_tokens") or 0, reason)
        finally:
            if not ended:
                self._offline.tokenizer_manager.abort_request(rid=name)
            await answers.aclose()

    async def _score(self, prompt: list[int], continuation: list[int], adapter: Any, name: str) -> Score:
        answer = await self._offline.async_generate(
            input_ids=[*prompt, *continuation],
            sampling_params={"temperature": 0.0, "max_new_tokens": 1},
            return_logprob=True,
            logprob_start_len=len(prompt) - 1,
            top_logprobs_num=1,
            stream=False,
            rid=name,
            lora_path=adapter,
        )
        about = answer["meta_info"]
        own = about["input_token_logprobs"][-len(continuation) :]
        best = about["input_top_logprobs"][-len(continuation) :]
        assert [token for _, token, *_ in own] == continuation, "the log probabilities are those of the continuation"
        greedy = all(one[0] >= top[0][0] for one, top in zip(own, best, strict=True))
        return Score(tuple(float(one[0]) for one in own), greedy)

    async def _load(self, name: str, path: str) -> Any:
        known = name or "default"
        answer = await self._offline.async_load_lora_adapter(lora_name=known, lora_path=path)
        if not answer.success:
            raise ValueError(answer.error_message)
        return known

    async def _unload(self, adapter: Any) -> None:
        await self._offline.async_unload_lora_adapter(lora_name=adapter)

    def _shut_down(self) -> None:
        self._offline.shutdown()


def _logprobs(most: int | None) -> dict[str, Any]:
    return {} if most is None else {"return_logprob": True, "top_logprobs_num": most}


def _told(about: Mapping[str, Any], count: int) -> Sequence[tuple[Any, ...]]:
    """(log probability, the likeliest) of each token of a chunk; nothing where it was not asked for."""
    if (chosen := about.get("output_token_logprobs")) is None:
        return [()] * count
    tops = about.get("output_top_logprobs") or [()] * count
    return [
        (float(one[0]), tuple((token, float(logprob)) for logprob, token, *_ in top or ()))
        for one, top in zip(chosen, tops, strict=True)
    ]
