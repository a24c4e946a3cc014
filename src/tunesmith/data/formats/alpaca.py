"""Alpaca rows: an instruction, an optional input, the answer or a pair of answers; earlier turns in `history`."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.core.types import Message, Origin, Text
from tunesmith.data.formats.base import Row, check_text, is_blank, stages, text_field
from tunesmith.data.formats.chats import ChatFormat, Tools
from tunesmith.data.formats.markup import structured
from tunesmith.data.formats.media import COLUMN_NAMES
from tunesmith.data.formats.turns import assistant
from tunesmith.data.rows import RowError

__all__ = ["Alpaca"]


class Alpaca(ChatFormat):
    """`{"instruction": ..., "input": ..., "output": ...}`; prompt and query are joined by a newline."""

    default_columns: ClassVar = {
        "prompt": "instruction",
        "query": "input",
        "response": "output",
        "history": "history",
        "system": "system",
        "tools": "tools",
        "chosen": "chosen",
        "rejected": "rejected",
        "margin": "margin",
        "kto_tag": "kto_tag",
        **COLUMN_NAMES,
    }
    needed: ClassVar = stages(
        document=("prompt",),
        chat=("prompt", "response"),
        preference=("prompt", "chosen", "rejected"),
        feedback=("prompt", "response", "kto_tag"),
        prompt=("prompt",),
    )
    prompt_columns = ("prompt", "query", "history", "system", "tools")

    def document(self, row: Row, origin: Origin) -> Text:
        return Text(self._prompt(row), origin)

    def opening(self, row: Row, origin: Origin, tools: Tools) -> list[Message]:
        messages = [*self._history(self.get(row, "history")), Message("user", self._prompt(row))]
        return self.with_system(structured(messages, tools), row)

    def whole(self, row: Row, origin: Origin, tools: Tools) -> tuple[list[Message], list[Message]]:
        column = self.columns["response"]
        reply = assistant(text_field(row, column))
        if is_blank(reply.content):
            raise RowError("E-DATA-012", "an empty answer", column, row[column])
        return self.opening(row, origin, tools), structured([reply], tools)

    def _prompt(self, row: Row) -> str:
        prompt = text_field(row, self.columns["prompt"])
        query = text_field(row, self.columns.get("query"), optional=True)
        text = f"{prompt}\n{query}" if prompt and query else prompt or query
        if is_blank(text):
            what = "an empty text" if self.stage_kind == "document" else "an empty prompt"
            raise RowError("E-DATA-012", what, self.columns["prompt"])
        return text

    def _history(self, history: Any) -> list[Message]:
        """Earlier turns: a list of pairs (user text, answer)."""
        column = self.columns.get("history")
        if history is None or history == "":
            return []
        if not isinstance(history, list):
            raise RowError("E-DATA-014", "the history is not a list of pairs", column, history)
        messages = []
        for pair in history:
            if not isinstance(pair, list) or len(pair) != 2:
                raise RowError("E-DATA-014", "the history is not a list of pairs", column, pair)
            user, answer = (check_text(text, column) for text in pair)
            if is_blank(user) or is_blank(answer):
                raise RowError("E-DATA-012", "an empty text in the history", column, pair)
            messages += [Message("user", user), assistant(answer)]
        return messages
