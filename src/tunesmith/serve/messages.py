"""OpenAI's messages and tools as ours. Which orders of roles a chat may have is for the model's template to say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.core.types import Message, ToolCall
from tunesmith.serve.errors import invalid, missing, unsupported
from tunesmith.serve.fields import (
    Body,
    Reader,
    any_object,
    anything,
    boolean,
    choice,
    described,
    list_of,
    object_with,
    read_object,
    text,
    wrong_type,
)
from tunesmith.serve.limits import LIMITS
from tunesmith.serve.parts import Content, read_content

__all__ = ["Messages", "read_messages", "read_tools"]

_ROLES = ("system", "developer", "user", "assistant", "tool")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Messages(list[Message]):
    """Messages of a chat. `places`: where their media stand in the request, in their order."""

    places: tuple[str, ...] = ()


def _arguments(value: Any, where: str) -> dict[str, Any]:
    """The JSON object in a string; some clients send the object itself."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else {}
        except (ValueError, RecursionError):
            raise invalid(f"{where} is not JSON: {value[:80]!r}", where) from None
    if not isinstance(value, dict):
        raise wrong_type(value, where, "a JSON object in a string")
    return value


def _call(value: Any, where: str) -> ToolCall:
    function = object_with({"name": text(1, 256), "arguments": _arguments}, ["name"])
    table = {"id": text(1, 256), "type": choice("function"), "function": function, "index": anything}
    found = read_object(value, table, where, required=["function"])
    return ToolCall(found["function"]["name"], found["function"].get("arguments", {}), found.get("id"))


@described(type="array", items={"type": "object", "required": ["function"]}, maxItems=LIMITS.calls)
def _calls(value: Any, where: str) -> list[ToolCall]:
    found: list[ToolCall] = list_of(_call, LIMITS.calls)(value, where)
    return found


_PLAIN: dict[str, Reader] = {"role": choice(*_ROLES), "content": read_content, "name": text(1, 256)}
_WRITTEN: dict[str, Reader] = {
    "tool_calls": _calls,
    "reasoning_content": text(),
    "reasoning": text(),
    "refusal": text(),
}
_REPLACED = {"function_call": "tool_calls has replaced it"}
_BODIES = {
    **dict.fromkeys(("system", "developer", "user"), Body(_PLAIN, ["role"], (), _REPLACED)),
    # They come back as this server, or another one, has sent them.
    "assistant": Body(
        {**_PLAIN, **_WRITTEN}, ["role"], ["annotations"], {**_REPLACED, "audio": "this server reads text only"}
    ),
    "tool": Body({**_PLAIN, "tool_call_id": text(1, 256)}, ["role"], (), _REPLACED),
}
"""By role."""


def _message(value: Any, where: str, called: Mapping[str, str]) -> tuple[Message, tuple[str, ...]]:
    """The message, and where its media stand."""
    if not isinstance(value, dict):
        raise wrong_type(value, where, "an object")
    if value.get("role") is None:
        raise missing(f"{where}.role")
    if value["role"] == "function":
        raise unsupported(f'{where} has the role "function", which "tool" has replaced', f"{where}.role")
    role = choice(*_ROLES)(value["role"], f"{where}.role")
    found = _BODIES[role].read(value, where)
    content: Content | None = found.pop("content", None)
    if content is not None and content.media and role != "user":
        place = content.media[0].where
        raise unsupported(f"{place} is in a message of the role {role}: users show media", place)
    if role == "assistant":
        return _assistant(found, content, where), ()
    if content is None:
        raise missing(f"{where}.content")
    if role != "tool":
        media, places = tuple(one.medium for one in content.media), tuple(one.where for one in content.media)
        said = "system" if role == "developer" else role
        return Message(said, content.text, name=found.get("name"), media=media), places  # type: ignore[arg-type]
    if "tool_call_id" not in found:
        raise missing(f"{where}.tool_call_id")
    name = found.get("name") or called.get(found["tool_call_id"])
    return Message("tool", content.text, tool_call_id=found["tool_call_id"], name=name), ()


def _assistant(found: Mapping[str, Any], content: Content | None, where: str) -> Message:
    calls = found.get("tool_calls", ())
    if not calls and content is None and "refusal" not in found:
        raise missing(f"{where}.content")
    return Message(
        "assistant",
        (content and content.text) or found.get("refusal", ""),
        reasoning=found.get("reasoning_content") or found.get("reasoning"),
        tool_calls=tuple(calls),
        name=found.get("name"),
    )


@described(
    type="array",
    items={"anyOf": [_BODIES[role].schema for role in ("user", "assistant", "tool")]},
    minItems=1,
    maxItems=LIMITS.messages,
)
def read_messages(value: Any, where: str) -> Messages:
    """Messages of a chat; results of tools get the name of the function that was called.

    Raises ApiError (400) naming the message and its field.
    """
    plain = list_of(anything, LIMITS.messages, least=1)(value, where)
    messages = Messages()
    called: dict[str, str] = {}
    for index, one in enumerate(plain):
        message, places = _message(one, f"{where}[{index}]", called)
        messages.places += places
        called |= {call.id: call.name for call in message.tool_calls if call.id}
        messages.append(message)
    if len(messages.places) > LIMITS.media:
        place = messages.places[LIMITS.media]
        raise invalid(f"{place} is one medium too many: there may be {LIMITS.media}", place, "too_many_media")
    return messages


@described(type="string", pattern=f"^{_NAME.pattern}$")
def _tool_name(value: Any, where: str) -> str:
    name = str(text(1)(value, where))
    if not _NAME.fullmatch(name):
        raise invalid(f"{where} may have up to 64 of A-Z, a-z, 0-9, _, . and -", where)
    return name


_FUNCTION: dict[str, Reader] = {
    "name": _tool_name,
    "description": text(),
    "parameters": any_object,
    "strict": boolean,
}
_TOOL = Body({"type": text(), "function": object_with(_FUNCTION, ["name"])}, ["type", "function"])


@described(**_TOOL.schema)
def _tool(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, dict) and value.get("type") not in (None, "function"):
        raise unsupported(f"{where}: tools of type function are supported, and no others", f"{where}.type")
    function = _TOOL.read(value, where)["function"]
    function.setdefault("parameters", {"type": "object", "properties": {}})
    return {"type": "function", "function": function}


@described(type="array", items=_TOOL.schema, maxItems=LIMITS.tools)
def read_tools(value: Any, where: str) -> list[dict[str, Any]]:
    """Tools as templates expect them: OpenAI's form, with an object of parameters in each. `strict` is kept."""
    tools: list[dict[str, Any]] = list_of(_tool, LIMITS.tools)(value, where)
    names: Sequence[str] = [tool["function"]["name"] for tool in tools]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise invalid(f'{where}[{index}] is a second tool named "{name}"', f"{where}[{index}].function.name")
    return tools
