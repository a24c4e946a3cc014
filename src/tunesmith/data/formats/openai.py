"""OpenAI rows: `{"messages": [{"role": "user", "content": ...}, ...], "tools": [...]}`, tool calls, thoughts."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from tunesmith.core.types import Message
from tunesmith.data.formats.base import check_text
from tunesmith.data.formats.conversation import Conversation
from tunesmith.data.formats.markup import split_thought
from tunesmith.data.formats.turns import parse_tool_calls
from tunesmith.data.rows import RowError

__all__ = ["OpenAI"]

_THOUGHTS = ("reasoning_content", "reasoning")


class OpenAI(Conversation):
    """Content is text, or a list of parts of type `text`. `weight: 0` leaves an answer untrained, as at OpenAI."""

    default_columns: ClassVar = {"messages": "messages", "system": "system", "tools": "tools"}
    roles = MappingProxyType(
        {
            "system": "system",
            "developer": "system",
            "user": "user",
            "assistant": "assistant",
            "tool": "tool",
            "function": "tool",
        }
    )
    role_keys = ("role",)
    content_keys = ("content",)

    def message(self, turn: Mapping[str, Any], role: str, column: str) -> Message:
        if role == "function":  # a tag of dataset_info.json: the content is the call
            thought, text = split_thought(self.text(turn, column))
            return Message("assistant", "", reasoning=thought, tool_calls=parse_tool_calls(text, column))
        if role == "assistant":
            return self._answer(turn, column)
        text = self.text(turn, column)
        if role == "tool":
            return Message("tool", text, tool_call_id=turn.get("tool_call_id"), name=turn.get("name"))
        return Message(role, text)  # type: ignore[arg-type]  # a role of the table above

    def _answer(self, turn: Mapping[str, Any], column: str) -> Message:
        calls = turn.get("tool_calls") or ([turn["function_call"]] if turn.get("function_call") else None)
        tool_calls = parse_tool_calls(calls, f"{column}.tool_calls") if calls else ()
        key = self.content_keys[0]
        content = "" if tool_calls and turn.get(key) is None else self.text(turn, column)
        thought = next((turn[name] for name in _THOUGHTS if turn.get(name) is not None), None)
        if thought is None:
            thought, content = split_thought(content)
        else:
            check_text(thought, f"{column}.reasoning_content")
        weight = turn.get("weight")
        if weight not in (None, 0, 1):
            raise RowError("E-DATA-014", "the weight of a message is neither 0 nor 1", f"{column}.weight", weight)
        trained = None if weight is None else bool(weight)
        return Message("assistant", content, reasoning=thought, tool_calls=tool_calls, trained=trained)

    def text(self, turn: Mapping[str, Any], column: str) -> str:
        content = self.content(turn, column)
        field = f"{column}.{self.content_keys[0]}"
        if not isinstance(content, list):
            return check_text(content, field)
        texts = []
        for part in content:
            kind = part.get("type") if isinstance(part, dict) else None
            if kind != "text":
                reason = f'a content part of type "{kind}"; this version reads text only'
                raise RowError("E-DATA-018", reason, field, part)
            texts.append(check_text(part.get("text", part.get("value")), field))
        return "".join(texts)
