"""The rules of a conversation, and the parts that all chat formats parse: tool calls and tool schemas."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tunesmith.core.types import Message, ToolCall
from tunesmith.data.formats.base import check_json, check_text, is_blank
from tunesmith.data.formats.markup import split_thought
from tunesmith.data.formats.media import join
from tunesmith.data.rows import RowError
from tunesmith.render.tools.content import parse_content

__all__ = ["assistant", "check_turns", "merge_turns", "parse_tool_calls", "parse_tools"]

# (role before, role): what is wrong with that order. `start` stands before the first message that is not a system
# message. What is not listed is right.
_ORDER = {
    ("user", "user"): "a user message where an answer is due",
    ("tool", "user"): "a user message where an answer is due",
    ("assistant", "assistant"): "two assistant messages in a row",
    ("start", "assistant"): "the conversation does not begin with a user message",
    ("start", "tool"): "a tool result that no tool call asked for",
    ("user", "tool"): "a tool result that no tool call asked for",
}
_MERGED = ("system", "user", "assistant")
_MERGE = 'messages of one role in a row can be joined: "merge_consecutive": true for the dataset; or mend the rows'


def assistant(text: str, tool_calls: Sequence[ToolCall] = (), trained: bool | None = None) -> Message:
    reasoning, content = split_thought(text)
    return Message("assistant", content, reasoning=reasoning, tool_calls=tool_calls, trained=trained)


def check_turns(messages: Sequence[Message], field: str | None, *, open_end: bool = False) -> None:
    """Raises RowError unless the messages are: a system message or none, then user -> answers, to an answer at the end.

        system? (user (assistant tool+)* assistant)+

    Each message but an answer that calls tools must say something. With `open_end` an answer is due at the end, as
    in a prompt.
    """
    if not messages:
        raise RowError("E-DATA-016", "no messages", field)
    if not open_end and not any(message.role == "assistant" for message in messages):
        raise RowError("E-DATA-016", "no assistant message", field, f"message 1 of {len(messages)} is the first")
    before, caller = "start", None
    for index, message in enumerate(messages):
        role = message.role
        if role == "system":
            if index:
                fix = _MERGE if messages[index - 1].role == "system" else None
                raise _misplaced("a system message that is not the first", messages, index, field, fix)
            continue
        if fault := _ORDER.get((before, role)):
            raise _misplaced(fault, messages, index, field, _MERGE if before == role else None)
        if role == "tool":
            if caller is None or not caller.tool_calls:
                raise _misplaced(_ORDER["user", "tool"], messages, index, field)
            _check_call_id(message, caller, index, field)
        else:
            if is_blank(message.content) and not message.tool_calls:
                what = "prompt" if role == "user" else "answer"
                raise RowError("E-DATA-012", f"an empty {what}", field, f"message {index + 1} of {len(messages)}")
            caller = message
        before = role
    if before == "assistant" and open_end:
        raise _misplaced("a prompt that ends with an answer", messages, len(messages) - 1, field)
    if before != "assistant" and not open_end:
        raise _misplaced("the last message is not an answer", messages, len(messages) - 1, field)
    if before == "start":
        raise _misplaced("no user message", messages, 0, field)


def _misplaced(
    reason: str, messages: Sequence[Message], index: int, field: str | None, fix: str | None = None
) -> RowError:
    place = f"message {index + 1} of {len(messages)}"
    return RowError("E-DATA-016", reason, field, messages[index].content, fix).at(place)


def _check_call_id(result: Message, caller: Message, index: int, field: str | None) -> None:
    """A result with an id must be that of one of the calls before it, where these have ids."""
    known = [call.id for call in caller.tool_calls if call.id is not None]
    if result.tool_call_id is not None and known and result.tool_call_id not in known:
        got = f"message {index + 1}: {result.tool_call_id!r}; calls: {', '.join(known)}"
        raise RowError("E-DATA-017", "a tool result for a call that is not there", field, got)


def merge_turns(messages: Sequence[Message], field: str | None) -> list[Message]:
    """Consecutive system, user and assistant messages become one each, their texts joined by a line end. Results of
    tools stay as they are: several in a row answer several calls."""
    merged: list[Message] = []
    for index, message in enumerate(messages):
        last = merged[-1] if merged else None
        if last is None or last.role != message.role or message.role not in _MERGED:
            merged.append(message)
            continue
        if (last.trained, last.weight) != (message.trained, message.weight):
            reason = "messages of one role in a row with different loss weights cannot be joined"
            raise RowError("E-DATA-016", reason, field, f"message {index + 1} of {len(messages)}")
        thoughts = [one.reasoning for one in (last, message) if one.reasoning is not None]
        content, media = join((last, message))
        merged[-1] = replace(
            last,
            content=content,
            media=media,
            reasoning="\n".join(thoughts) if thoughts else None,
            tool_calls=(*last.tool_calls, *message.tool_calls),
        )
    return merged


def parse_tool_calls(value: Any, field: str) -> tuple[ToolCall, ...]:
    """Calls from JSON text or parsed JSON: one object or several, bare or wrapped as `{"function": {...}}`; or from
    the markup of a dialect."""
    if isinstance(value, str) and not value.lstrip().startswith(("{", "[{")):
        marked, _form = parse_content(value)
        if marked.calls and not marked.content.strip():
            return marked.calls
    value = _json(value, field, "a tool call is not valid JSON")
    calls = value if isinstance(value, list) else [value]
    if not calls:
        raise RowError("E-DATA-017", "an empty list of tool calls", field)
    found = tuple(_tool_call(call, field) for call in calls)
    ids = [call.id for call in found if call.id is not None]
    if twice := [one for one in ids if ids.count(one) > 1]:
        raise RowError("E-DATA-017", "two tool calls of one message have the same id", field, twice[0])
    return found


def _tool_call(call: Any, field: str) -> ToolCall:
    outer = call if isinstance(call, dict) else {}
    function = outer.get("function")
    inner = function if isinstance(function, dict) else outer
    name, arguments = inner.get("name"), inner.get("arguments")
    if not isinstance(name, str) or not name:
        raise RowError("E-DATA-017", "a tool call without a name", field, call)
    check_text(name, field)
    if arguments is None or arguments == "":
        arguments = {}
    arguments = _json(arguments, field, "the arguments of a tool call are not valid JSON")
    if not isinstance(arguments, dict):
        raise RowError("E-DATA-017", "the arguments of a tool call are not an object", field, arguments)
    check_json(arguments, field)
    identity = outer.get("id")
    return ToolCall(name, arguments, check_text(identity, f"{field}.id") if isinstance(identity, str) else None)


def parse_tools(value: Any, field: str | None) -> tuple[Mapping[str, Any], ...]:
    """Tool schemas in OpenAI's form, from JSON text or parsed JSON, bare or wrapped. None and empty text: no tools."""
    if value is None or (isinstance(value, str) and is_blank(value)):
        return ()
    value = _json(value, field, "the tools are not valid JSON")
    tools = value if isinstance(value, list) else [value]
    return tuple(_tool(tool, field) for tool in tools)


def _tool(tool: Any, field: str | None) -> Mapping[str, Any]:
    if isinstance(tool, dict):
        check_json(tool, field)
        function = tool.get("function")
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            return tool if "type" in tool else {"type": "function", **tool}
        if isinstance(tool.get("name"), str):
            schema = {key: inner for key, inner in tool.items() if key != "type" or inner != "function"}
            return {"type": "function", "function": schema}
    raise RowError("E-DATA-017", "a tool without a name", field, tool)


def _json(value: Any, field: str | None, reason: str) -> Any:
    if not isinstance(value, str):
        return value
    check_text(value, field)
    try:
        return json.loads(value)
    except (ValueError, RecursionError):  # ValueError also for numbers of thousands of digits
        raise RowError("E-DATA-017", reason, field, value) from None
