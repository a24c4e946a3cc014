"""The rules of a conversation, and the parts that all chat formats parse: tool calls and tool schemas."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.core.types import Message, ToolCall
from tunesmith.data.formats.base import check_text, is_blank
from tunesmith.data.formats.markup import split_thought
from tunesmith.data.rows import RowError
from tunesmith.render.tools.content import parse_content

__all__ = ["assistant", "check_turns", "parse_tool_calls", "parse_tools"]


def assistant(text: str, tool_calls: Sequence[ToolCall] = (), trained: bool | None = None) -> Message:
    reasoning, content = split_thought(text)
    return Message("assistant", content, reasoning=reasoning, tool_calls=tool_calls, trained=trained)


def check_turns(messages: Sequence[Message], field: str | None) -> None:
    """Raises RowError unless the messages are: a system message or none, then user -> answers, to an answer at the end.

        system? (user (assistant tool+)* assistant)+

    Each message but an answer that calls tools must say something.
    """
    if not any(message.role == "assistant" for message in messages):
        reason = "no messages" if not messages else "no assistant message"
        raise RowError("E-DATA-016", reason, field)
    previous: Message | None = None
    for index, message in enumerate(messages):
        if fault := _fault(message, previous, index):
            raise RowError("E-DATA-016", fault, field, f"message {index + 1} of {len(messages)}: {message.content}")
        if is_blank(message.content) and not message.tool_calls and message.role in ("user", "assistant"):
            what = "prompt" if message.role == "user" else "answer"
            raise RowError("E-DATA-012", f"an empty {what}", field, f"message {index + 1} of {len(messages)}")
        if message.role != "system":
            previous = message
    if previous is not None and previous.role != "assistant":
        raise RowError("E-DATA-016", "the last message is not an answer", field, previous.content)


def _fault(message: Message, previous: Message | None, index: int) -> str | None:
    """What is wrong with a message behind the previous one (system messages aside)."""
    before = previous.role if previous else None
    if message.role == "system":
        return "a system message that is not the first" if index else None
    if message.role == "user":
        return None if before in (None, "assistant") else "a user message where an answer is due"
    if message.role == "assistant":
        if before == "assistant":
            return "two assistant messages in a row"
        return None if before else "the conversation does not begin with a user message"
    if before == "tool" or (previous is not None and previous.tool_calls):
        return None
    return "a tool result that no tool call asked for"


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
    return tuple(_tool_call(call, field) for call in calls)


def _tool_call(call: Any, field: str) -> ToolCall:
    outer = call if isinstance(call, dict) else {}
    function = outer.get("function")
    inner = function if isinstance(function, dict) else outer
    name, arguments = inner.get("name"), inner.get("arguments")
    if not isinstance(name, str) or not name:
        raise RowError("E-DATA-017", "a tool call without a name", field, call)
    if arguments is None or arguments == "":
        arguments = {}
    arguments = _json(arguments, field, "the arguments of a tool call are not valid JSON")
    if not isinstance(arguments, dict):
        raise RowError("E-DATA-017", "the arguments of a tool call are not an object", field, arguments)
    identity = outer.get("id")
    return ToolCall(name, arguments, identity if isinstance(identity, str) else None)


def parse_tools(value: Any, field: str | None) -> tuple[Mapping[str, Any], ...]:
    """Tool schemas in OpenAI's form, from JSON text or parsed JSON, bare or wrapped. None and empty text: no tools."""
    if value is None or (isinstance(value, str) and is_blank(value)):
        return ()
    value = _json(value, field, "the tools are not valid JSON")
    tools = value if isinstance(value, list) else [value]
    return tuple(_tool(tool, field) for tool in tools)


def _tool(tool: Any, field: str | None) -> Mapping[str, Any]:
    if isinstance(tool, dict):
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
    except (json.JSONDecodeError, RecursionError):
        raise RowError("E-DATA-017", reason, field, value) from None
