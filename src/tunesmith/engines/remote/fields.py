"""What is asked for, in the fields of OpenAI's protocol: `Sampling` and messages out, replies back."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.errors import Problem, UsageError
from tunesmith.core.types import PLACE, Medium, Message, ToolCall
from tunesmith.media.kinds import kind_of

__all__ = ["CLOSING", "OPENING", "as_fields", "as_messages", "calls_of", "refused", "written_calls"]

OPENING, CLOSING = "<think>", "</think>"
"""Around a thought in the text of a reply, as most models write it."""

_SAME = "temperature top_p top_k min_p repetition_penalty presence_penalty frequency_penalty seed"

_FIELDS: dict[str, Callable[[Any], dict[str, Any]]] = {
    **{name: lambda value, name=name: {name: value} for name in _SAME.split()},  # type: ignore[misc]
    # Not max_completion_tokens: servers that do not know the newer name would pass over it.
    "max_new_tokens": lambda value: {} if value is None else {"max_tokens": value},
    "stop": lambda value: {"stop": list(value)} if value else {},
    "logit_bias": lambda value: {"logit_bias": {str(token): bias for token, bias in value.items()}} if value else {},
}
_REFUSED: dict[str, tuple[Any, str]] = {
    "skip_special_tokens": (True, "the server decides about special tokens in its texts"),
    "logprobs": (None, "log probabilities are of tokens, and the reply is text"),
    "max_length": (None, "how long the prompt is, the server knows alone; use max_new_tokens"),
}
"""The value that asks for nothing, and why no other is passed on."""


def refused(what: str, why: str) -> UsageError:
    """For what a server elsewhere cannot be asked for."""
    fix = "leave it out, or use infer_backend: huggingface"
    return UsageError(Problem("E-ENGINE-028", f"{what} is not possible with infer_backend: remote", got=why, fix=fix))


def as_fields(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """`sampling`: fields of `engines.base.Sampling` that somebody has set; what is left out is the server's to say.

    Raises UsageError (E-ENGINE-028) for one that cannot be passed on, TypeError for a name that is none.
    """
    found: dict[str, Any] = {}
    for name, value in sampling.items():
        if name == "do_sample":
            continue
        if name in _REFUSED:
            neutral, why = _REFUSED[name]
            if value != neutral:
                raise refused(name, why)
        elif name in _FIELDS:
            found |= {} if value is None else _FIELDS[name](value)
        else:
            raise TypeError(f"{name} is no field of Sampling")
    if sampling.get("do_sample") is False:  # the protocol has no other word for it
        found = {name: value for name, value in found.items() if name not in ("top_p", "top_k", "min_p", "seed")}
        found["temperature"] = 0
    return found


def as_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages of the protocol. Calls without an id get one; results without one answer the calls in their order."""
    found: list[dict[str, Any]] = []
    open_calls: list[str] = []
    for number, message in enumerate(messages):
        one: dict[str, Any] = {"role": message.role, "content": _parts(message) if message.media else message.content}
        if message.name is not None:
            one["name"] = message.name
        if message.tool_calls:
            named = [call.id or f"call_{number}_{index}" for index, call in enumerate(message.tool_calls)]
            one["tool_calls"] = [_call(call, name) for call, name in zip(message.tool_calls, named, strict=True)]
            one["content"] = message.content or None
            open_calls = named
        if message.role == "tool":
            name = message.tool_call_id or (open_calls[0] if open_calls else "")
            one["tool_call_id"] = name
            open_calls = [other for other in open_calls if other != name]
        found.append(one)
    return found


def _parts(message: Message) -> list[dict[str, Any]]:
    media, parts = iter(message.media), list[dict[str, Any]]()
    for number, text in enumerate(message.content.split(PLACE)):
        if number:
            parts.append(_part(next(media)))
        if text:
            parts.append({"type": "text", "text": text})
    return parts


def _part(medium: Medium) -> dict[str, Any]:
    """A settled medium with all of its bytes. Raises UsageError (E-MEDIA-062) for what is not one file."""
    path = Path(str(medium.source))
    data = path.read_bytes() if isinstance(medium.source, str) and path.is_file() else b""
    kind = kind_of(data)
    if kind is None:
        what, fix = "this cannot be sent to a server as one file", "make one file of it, in a common format"
        raise UsageError(Problem("E-MEDIA-062", what, str(path), medium.kind, fix))
    text = b64encode(data).decode()
    if medium.kind == "audio":
        form = kind.partition("/")[2]
        return {"type": "input_audio", "input_audio": {"data": text, "format": {"mpeg": "mp3"}.get(form, form)}}
    return {"type": f"{medium.kind}_url", f"{medium.kind}_url": {"url": f"data:{kind};base64,{text}"}}


def _call(call: ToolCall, name: str) -> dict[str, Any]:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {"id": name, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def calls_of(found: Sequence[Mapping[str, Any]]) -> tuple[ToolCall, ...]:
    """Calls of a message of the protocol. Raises ValueError for one whose arguments are no JSON object."""
    calls = []
    for one in found:
        function = one.get("function") or {}
        arguments = json.loads(function.get("arguments") or "{}")
        if not isinstance(arguments, dict):
            raise ValueError(f"arguments of {function.get('name')} that are no object")
        calls.append(ToolCall(str(function.get("name")), arguments, one.get("id")))
    return tuple(calls)


def written_calls(calls: Sequence[ToolCall]) -> str:
    """Calls as text, in the form that `render.replies` reads where no dialect is known."""
    told = [json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False) for call in calls]
    return "".join(f"\n<tool_call>\n{one}\n</tool_call>" for one in told)
