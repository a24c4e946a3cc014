"""Rows with a column that holds a list of messages: sharegpt and OpenAI, alone or with a pair or a label beside."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.types import Message, Origin
from tunesmith.data.formats.base import Row, kind_of, missing, stages
from tunesmith.data.formats.chats import ChatFormat, Tools
from tunesmith.data.rows import RowError

__all__ = ["Conversation"]


class Conversation(ChatFormat):
    """A list of messages per row. Without tags the roles of both vocabularies of the field are known.

    With `chosen` and `rejected` the messages are the prompt; with a label the last of them is the answer it judges.
    """

    needed: ClassVar = stages(
        chat=("messages",),
        preference=("messages", "chosen", "rejected"),
        feedback=("messages", "kto_tag"),
        prompt=("messages",),
    )
    prompt_columns = ("messages", "system", "tools")

    def opening(self, row: Row, origin: Origin, tools: Tools) -> list[Message]:
        messages = self._all(row, origin, tools)
        if self.stage_kind == "prompt":  # what the data answers is not part of it: generation writes its own
            while len(messages) > 1 and messages[-1].role == "assistant":
                del messages[-1]
        return messages

    def whole(self, row: Row, origin: Origin, tools: Tools) -> tuple[list[Message], list[Message]]:
        messages = self._all(row, origin, tools)
        return messages[:-1], messages[-1:]

    def _all(self, row: Row, origin: Origin, tools: Tools) -> list[Message]:
        column = self.columns["messages"]
        turns = row.get(column)
        if turns is None:
            missing(row, column)
        if not isinstance(turns, list):
            raise RowError("E-DATA-014", f"the field is {kind_of(turns)}, not a list of messages", column, turns)
        return self.with_system(self.messages(row, column, origin, tools), row)
