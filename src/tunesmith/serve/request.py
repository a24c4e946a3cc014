"""Requests for text, as checked values. Each field of OpenAI's is in a table here: read, ignored or refused.

Beside OpenAI's fields there are those that other servers have: top_k, min_p, repetition_penalty, do_sample,
chat_template_kwargs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tunesmith.config.generate import GenerateConfig
from tunesmith.engines.base import Sampling
from tunesmith.serve.errors import invalid, missing, unsupported
from tunesmith.serve.fields import (
    Body,
    Reader,
    any_object,
    boolean,
    choice,
    described,
    integer,
    list_of,
    number,
    object_with,
    read_object,
    schema_of,
    text,
    wrong_type,
)
from tunesmith.serve.limits import LIMITS
from tunesmith.serve.messages import Messages, read_messages, read_tools

__all__ = [
    "CHAT",
    "COMPLETION",
    "IGNORED",
    "ChatRequest",
    "CompletionRequest",
    "ToolChoice",
    "Wishes",
    "read_chat",
    "read_completion",
    "read_texts",
]

IGNORED = (
    "user",
    "store",
    "metadata",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
)
"""Fields that change no answer: they are for the provider's books."""

_REFUSED_IN_CHAT = {
    "audio": "this server writes text only",
    "functions": "tools has replaced it",
    "function_call": "tool_choice has replaced it",
    "prediction": "replies are not predicted",
    "reasoning_effort": "chat_template_kwargs has what the model's template knows, like enable_thinking",
    "verbosity": "the model knows no such setting",
    "web_search_options": "this server does not search",
    "moderation": "this server does not moderate",
}
_REFUSED_IN_COMPLETIONS = {"suffix": "the model continues texts, and fills no gaps"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What both kinds of request say about replies. `n` of each prompt; `sampling`: changes of the config's."""

    model: str
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)

    def samplings(self, defaults: GenerateConfig, most: int | None, **changes: Any) -> list[Sampling]:
        """One for each of `n` replies. With a seed the first reply has it, and each further one the next number, so
        that they differ and can be had again. `most`: tokens that there is room for."""
        sampling = Sampling.of(defaults, **{**self.sampling, **changes})
        if self.max_tokens is not None:
            sampling = replace(sampling, max_new_tokens=self.max_tokens)
        elif most is not None and sampling.max_new_tokens is not None:
            sampling = replace(sampling, max_new_tokens=min(sampling.max_new_tokens, most))
        seeds = [None if sampling.seed is None else (sampling.seed + index) % 2**63 for index in range(self.n)]
        return [replace(sampling, seed=seed) for seed in seeds]


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """`name`: the one function that has to be called."""

    mode: Literal["none", "auto", "required"]
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest(Wishes):
    """`schema`: what the reply has to be, as JSON; None: anything. `thinking`: None leaves it to the config."""

    messages: Messages
    tools: list[dict[str, Any]]
    choice: ToolChoice
    parallel: bool = True
    schema: Mapping[str, Any] | None = None
    thinking: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest(Wishes):
    """`prompts`: texts, or ids of tokens."""

    prompts: list[str | list[int]]
    echo: bool = False


# ---- fields of both ----


@described(anyOf=[{"type": "string"}, {"type": "array", "items": {"type": "string"}, "maxItems": LIMITS.stops}])
def _stops(value: Any, where: str) -> tuple[str, ...]:
    one = text(1, LIMITS.stop_chars)
    if isinstance(value, str):
        return (one(value, where),)
    return tuple(list_of(one, LIMITS.stops)(value, where))


@described(type="object", additionalProperties={"type": "number", "minimum": -100, "maximum": 100})
def _bias(value: Any, where: str) -> dict[int, float]:
    found = any_object(value, where)
    if len(found) > LIMITS.bias_entries:
        raise invalid(f"{where} has {len(found)} entries, and may have {LIMITS.bias_entries}", where)
    bias = {}
    for key, one in found.items():
        if not (key.isascii() and key.isdigit()) or len(key) > 9:
            raise invalid(f"{where} names tokens by their numbers, and {key[:40]!r} is none", where)
        bias[int(key)] = number(-100, 100)(one, f"{where}.{key}")
    return bias


@described(const=["text"])
def _text_only(value: Any, where: str) -> list[str]:
    if value != ["text"]:
        raise unsupported(f'{where} other than ["text"] is not supported: this server writes text only', where)
    return ["text"]


_COMMON: dict[str, Reader] = {
    "model": text(1, 256),
    "n": integer(1, LIMITS.choices),
    "stream": boolean,
    "stream_options": object_with({"include_usage": boolean, "include_obfuscation": boolean}),
    "max_tokens": integer(1),
    "temperature": number(0, 2),
    "top_p": number(0, 1),
    "top_k": integer(0),
    "min_p": number(0, 1),
    "presence_penalty": number(-2, 2),
    "frequency_penalty": number(-2, 2),
    "repetition_penalty": number(above=0, most=10),
    "do_sample": boolean,
    "seed": integer(-(2**63), 2**63 - 1),
    "stop": _stops,
    "logit_bias": _bias,
}
_SAMPLING = ("temperature", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "stop")


def _wishes(found: Mapping[str, Any], logprobs: int | None) -> dict[str, Any]:
    sampling: dict[str, Any] = {name: found[name] for name in (*_SAMPLING, "logit_bias") if name in found}
    if "temperature" in found or "top_p" in found:  # who names one wants tokens drawn so, whatever the config does
        sampling["do_sample"] = True
    if found.get("top_p") == 0:
        sampling["do_sample"] = False
    elif "top_p" in found:
        sampling["top_p"] = found["top_p"]
    if "do_sample" in found:
        sampling["do_sample"] = found["do_sample"]
    if "seed" in found:
        sampling["seed"] = found["seed"] % 2**63
    if logprobs is not None:
        sampling["logprobs"] = logprobs
    if "stream_options" in found and not found.get("stream"):
        raise invalid("stream_options is for streams: set stream to true", "stream_options")
    return {
        "model": found["model"],
        "n": found.get("n", 1),
        "stream": found.get("stream", False),
        "include_usage": found.get("stream_options", {}).get("include_usage", False),
        "sampling": sampling,
    }


# ---- chat ----


@described(anyOf=[{"enum": ["none", "auto", "required"]}, {"type": "object"}])
def _choice(value: Any, where: str) -> ToolChoice:
    if isinstance(value, str):
        mode: Any = choice("none", "auto", "required")(value, where)
        return ToolChoice(mode)
    if isinstance(value, dict) and value.get("type") not in (None, "function"):
        raise unsupported(f'{where}: "none", "auto", "required" or one function', where)
    table = {"type": choice("function"), "function": object_with({"name": text(1, 64)}, ["name"])}
    found = read_object(value, table, where, required=["type", "function"])
    return ToolChoice("required", found["function"]["name"])


_JSON_SCHEMA: dict[str, Reader] = {
    "name": text(1, 64),
    "description": text(),
    "schema": any_object,
    "strict": boolean,
}
_FORMAT = Body(
    {"type": choice("text", "json_object", "json_schema"), "json_schema": object_with(_JSON_SCHEMA, ["name"])}, ["type"]
)


@described(**_FORMAT.schema)
def _format(value: Any, where: str) -> Mapping[str, Any] | None:
    """The schema that a reply has to obey."""
    found = _FORMAT.read(value, where)
    if found["type"] != "json_schema":
        if "json_schema" in found:
            raise invalid(f"{where}.json_schema goes with the type json_schema", f"{where}.json_schema")
        return {"type": "object"} if found["type"] == "json_object" else None
    if "json_schema" not in found:
        raise missing(f"{where}.json_schema")
    return found["json_schema"].get("schema", {"type": "object"})  # type: ignore[no-any-return]


_CHAT: dict[str, Reader] = {
    **_COMMON,
    "messages": read_messages,
    "max_completion_tokens": integer(1),
    "logprobs": boolean,
    "top_logprobs": integer(0, LIMITS.top_logprobs),
    "tools": read_tools,
    "tool_choice": _choice,
    "parallel_tool_calls": boolean,
    "response_format": _format,
    "modalities": _text_only,
    "chat_template_kwargs": object_with({"enable_thinking": boolean}),
}


CHAT = Body(_CHAT, ["model", "messages"], IGNORED, _REFUSED_IN_CHAT)


def read_chat(body: Any) -> ChatRequest:
    """Raises ApiError (400) for the first field that is wrong."""
    found = CHAT.read(body)
    tools, chosen = found.get("tools", []), found.get("tool_choice", ToolChoice("auto"))
    if not tools and chosen.mode == "required":
        raise invalid("tool_choice asks for a call, and there are no tools", "tool_choice")
    if not tools and "parallel_tool_calls" in found:
        raise invalid("parallel_tool_calls goes with tools", "parallel_tool_calls")
    names = [tool["function"]["name"] for tool in tools]
    if chosen.name is not None and chosen.name not in names:
        raise invalid(f'tool_choice names "{chosen.name}", which is none of the tools', "tool_choice")
    if "top_logprobs" in found and not found.get("logprobs"):
        raise invalid("top_logprobs goes with logprobs: true", "top_logprobs")
    schema = found.get("response_format")
    if schema is not None and chosen.mode == "required":
        raise invalid("a reply that has to be a call cannot have a response_format as well", "response_format")
    logprobs = found.get("top_logprobs", 0) if found.get("logprobs") else None
    return ChatRequest(
        **_wishes(found, logprobs),
        max_tokens=found.get("max_completion_tokens", found.get("max_tokens")),
        messages=found["messages"],
        tools=tools if chosen.mode != "none" else [],
        choice=chosen,
        parallel=found.get("parallel_tool_calls", True),
        schema=schema,
        thinking=found.get("chat_template_kwargs", {}).get("enable_thinking"),
    )


# ---- completions ----


def read_texts(most: int) -> Reader:
    """A text, texts, ids of one text, or ids of texts; always a list."""
    tokens = list_of(integer(0), 2**20, least=1)

    one: list[dict[str, Any]] = [{"type": "string"}, schema_of(tokens)]

    @described(anyOf=[*one, {"type": "array", "items": {"anyOf": one}, "minItems": 1, "maxItems": most}])
    def read(value: Any, where: str) -> list[Any]:
        if isinstance(value, str):
            return [value]
        if not isinstance(value, list):
            raise wrong_type(value, where, "a string, an array of strings, or token ids")
        if value and not isinstance(value[0], str | list):
            return [tokens(value, where)]
        item = tokens if value and isinstance(value[0], list) else text()
        found: list[Any] = list_of(item, most, least=1)(value, where)
        return found

    return read


_COMPLETION: dict[str, Reader] = {
    **_COMMON,
    "prompt": read_texts(LIMITS.prompts),
    "logprobs": integer(0, LIMITS.top_logprobs),
    "echo": boolean,
    "best_of": integer(1),
}


COMPLETION = Body(_COMPLETION, ["model", "prompt"], IGNORED, _REFUSED_IN_COMPLETIONS)


def read_completion(body: Any) -> CompletionRequest:
    """Raises ApiError (400) for the first field that is wrong."""
    found = COMPLETION.read(body)
    if found.get("best_of", 1) != found.get("n", 1) and "best_of" in found:
        raise unsupported("best_of other than n is not supported", "best_of")
    if found.get("echo") and "logprobs" in found:
        raise unsupported("echo with logprobs is not supported: prompts are not scored", "echo")
    replies = len(found["prompt"]) * found.get("n", 1)
    if replies > LIMITS.replies:
        raise invalid(f"prompts times n are {replies}, and may be {LIMITS.replies}", "prompt")
    return CompletionRequest(
        **_wishes(found, found.get("logprobs")),
        max_tokens=found.get("max_tokens"),
        prompts=found["prompt"],
        echo=found.get("echo", False),
    )
