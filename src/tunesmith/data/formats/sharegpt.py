"""ShareGPT rows: `{"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from tunesmith.core.types import Message
from tunesmith.data.formats.conversation import Conversation
from tunesmith.data.formats.markup import split_thought
from tunesmith.data.formats.turns import assistant, parse_tool_calls

__all__ = ["ShareGPT"]


class ShareGPT(Conversation):
    """A `function_call` message is JSON, one call or a list; an `observation` is what the tool gave back."""

    default_columns: ClassVar = {"messages": "conversations", "system": "system", "tools": "tools"}
    roles = MappingProxyType(
        {
            "human": "user",
            "gpt": "assistant",
            "observation": "tool",
            "function_call": "function",
            "system": "system",
            "user": "user",
            "assistant": "assistant",
            "tool": "tool",
        }
    )
    role_keys = ("from", "role")
    content_keys = ("value", "content")

    def message(self, turn: Mapping[str, Any], role: str, column: str) -> Message:
        text = self.text(turn, column)
        if role == "assistant":
            return assistant(text)
        if role == "function":
            thought, calls = split_thought(text)
            return Message("assistant", "", reasoning=thought, tool_calls=parse_tool_calls(calls, column))
        return Message(role, text)  # type: ignore[arg-type]  # a role of the table above
