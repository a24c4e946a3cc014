"""The objects of OpenAI's protocol that are sent back, with all fields that it requires."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Iterable, Sequence
from typing import Any

from tunesmith.core.types import ToolCall
from tunesmith.engines.base import End
from tunesmith.serve.service import Stamp

__all__ = ["DONE", "chat_chunk", "chat_completion", "completion", "event", "tool_calls", "usage", "usage_chunk"]

DONE = "data: [DONE]\n\n"
_ALPHABET = string.ascii_letters + string.digits


def event(value: Any) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def usage(ends: Iterable[End], prompt_tokens: int) -> dict[str, Any]:
    """`prompt_tokens`: of all prompts, each once, however many replies it has got."""
    ends = list(ends)
    written = sum(end.completion_tokens for end in ends)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": written,
        "total_tokens": prompt_tokens + written,
        "prompt_tokens_details": {"cached_tokens": min((end.cached_tokens for end in ends), default=0)},
    }


def tool_calls(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    """Ids are nine letters and digits where the reply gives none: the one form that every template takes."""
    return [
        {
            "id": call.id or "".join(secrets.choice(_ALPHABET) for _ in range(9)),
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments), ensure_ascii=False)},
        }
        for call in calls
    ]


def _head(stamp: Stamp, kind: str) -> dict[str, Any]:
    return {
        "id": stamp.id,
        "object": kind,
        "created": stamp.created,
        "model": stamp.model,
        "system_fingerprint": stamp.fingerprint,
    }


def chat_completion(stamp: Stamp, choices: Sequence[dict[str, Any]], used: dict[str, Any]) -> dict[str, Any]:
    return {**_head(stamp, "chat.completion"), "choices": list(choices), "usage": used}


def completion(stamp: Stamp, choices: Sequence[dict[str, Any]], used: dict[str, Any] | None) -> dict[str, Any]:
    """Also a part of a stream of the older form, which has no object of its own."""
    whole = {**_head(stamp, "text_completion"), "choices": list(choices)}
    return whole if used is None else {**whole, "usage": used}


def chat_chunk(
    stamp: Stamp,
    index: int,
    delta: dict[str, Any],
    *,
    finish_reason: str | None = None,
    logprobs: list[dict[str, Any]] | None = None,
    with_usage: bool = False,
) -> dict[str, Any]:
    """`with_usage`: the client asked for usage, which all parts but the last then have as null."""
    told = None if logprobs is None else {"content": logprobs, "refusal": None}
    choice = {"index": index, "delta": delta, "logprobs": told, "finish_reason": finish_reason}
    chunk = {**_head(stamp, "chat.completion.chunk"), "choices": [choice]}
    return {**chunk, "usage": None} if with_usage else chunk


def usage_chunk(stamp: Stamp, kind: str, used: dict[str, Any]) -> dict[str, Any]:
    return {**_head(stamp, kind), "choices": [], "usage": used}
