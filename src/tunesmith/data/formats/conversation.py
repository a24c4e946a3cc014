"""What the two chat formats share: a column that holds a list of messages, and the roles that their tags stand for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from tunesmith.core.types import Chat, Message, Origin
from tunesmith.data.formats.base import Format, Row, check_text, is_blank, text_field
from tunesmith.data.formats.markup import structured
from tunesmith.data.formats.turns import check_turns, parse_tools
from tunesmith.data.rows import RowError

__all__ = ["Conversation"]

TAG_ROLES = {
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": "function",
    "system_tag": "system",
}
"""What the tags of a dataset_info.json stand for; `function` is an assistant's message that is a tool call."""


class Conversation(Format, ABC):
    """A list of messages per row. Without tags the roles of both vocabularies of the field are known."""

    roles: Mapping[str, str] = MappingProxyType({})
    role_keys: tuple[str, ...] = ()
    content_keys: tuple[str, ...] = ()
    needed: ClassVar = {"sft": ("messages",)}

    def __init__(
        self, stage: str, columns: Mapping[str, str] | None = None, tags: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(stage, columns, tags)
        if tags is not None:
            self.role_keys, self.content_keys = (tags["role_tag"],), (tags["content_tag"],)
            self.roles = {tags[tag]: role for tag, role in TAG_ROLES.items() if tag in tags}

    def sft(self, row: Row, origin: Origin) -> Chat:
        column = self.columns["messages"]
        turns = row.get(column)
        if turns is None:
            code, reason = (
                ("E-DATA-013", "the field is null") if column in row else ("E-DATA-011", "the column is missing")
            )
            raise RowError(code, reason, column)
        if not isinstance(turns, list):
            raise RowError("E-DATA-014", "the field is not a list of messages", column, turns)
        messages = [self._message(turn, f"{column}[{index}]", column) for index, turn in enumerate(turns)]
        system = text_field(row, self.columns.get("system"), optional=True)
        if not is_blank(system) and not (messages and messages[0].role == "system"):
            messages.insert(0, Message("system", system))
        if messages and messages[0].role == "system" and is_blank(messages[0].content):
            del messages[0]
        tools = parse_tools(self.get(row, "tools"), self.columns.get("tools"))
        messages = structured(messages, tools)
        check_turns(messages, column)
        return Chat(messages, tools, origin)

    def _message(self, turn: Any, place: str, column: str) -> Message:
        if not isinstance(turn, dict):
            raise RowError("E-DATA-014", "a message is not an object", column, f"{place}: {turn!r}")
        tag = next((turn[key] for key in self.role_keys if key in turn), None)
        if tag is None:
            reason = f'a message without "{self.role_keys[0]}"'
            raise RowError("E-DATA-015", reason, column, f"{place} has: {', '.join(map(str, turn))}")
        role = self.roles.get(tag) if isinstance(tag, str) else None
        if role is None:
            known = ", ".join(self.roles)
            raise RowError("E-DATA-015", f"unknown role {tag!r} (known: {known})", column, place)
        return self.message(turn, role, column)

    @abstractmethod
    def message(self, turn: Mapping[str, Any], role: str, column: str) -> Message:
        """One message of a known role (`function`: a tool call written as the content)."""

    def content(self, turn: Mapping[str, Any], column: str) -> Any:
        """The content of a message as it is; RowError where there is none."""
        for key in self.content_keys:
            if key in turn:
                return turn[key]
        reason = f'a message without "{self.content_keys[0]}"'
        raise RowError("E-DATA-015", reason, column, f"it has: {', '.join(map(str, turn))}")

    def text(self, turn: Mapping[str, Any], column: str) -> str:
        return check_text(self.content(turn, column), f"{column}.{self.content_keys[0]}")
