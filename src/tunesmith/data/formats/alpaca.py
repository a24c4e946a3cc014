"""Alpaca rows: an instruction, an optional input, the answer; earlier turns in `history`."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.core.types import Chat, Message, Origin, Text
from tunesmith.data.formats.base import Format, Row, check_text, is_blank, text_field
from tunesmith.data.formats.markup import structured
from tunesmith.data.formats.turns import assistant, parse_tools
from tunesmith.data.rows import RowError

__all__ = ["Alpaca"]


class Alpaca(Format):
    """`{"instruction": ..., "input": ..., "output": ...}`; prompt and query are joined by a newline."""

    default_columns: ClassVar = {
        "prompt": "instruction",
        "query": "input",
        "response": "output",
        "history": "history",
        "system": "system",
        "tools": "tools",
    }
    needed: ClassVar = {"sft": ("prompt", "response"), "pt": ("prompt",)}

    def sft(self, row: Row, origin: Origin) -> Chat:
        columns = self.columns
        prompt = self._prompt(row)
        answer = text_field(row, columns["response"])
        messages = []
        system = text_field(row, columns.get("system"), optional=True)
        if not is_blank(system):
            messages.append(Message("system", system))
        messages += self._history(self.get(row, "history"))
        messages.append(Message("user", prompt))
        reply = assistant(answer)
        if is_blank(reply.content):
            raise RowError("E-DATA-012", "an empty answer", columns["response"], answer)
        messages.append(reply)
        tools = parse_tools(self.get(row, "tools"), columns.get("tools"))
        return Chat(structured(messages, tools), tools, origin)

    def pt(self, row: Row, origin: Origin) -> Text:
        return Text(self._prompt(row), origin)

    def _prompt(self, row: Row) -> str:
        prompt = text_field(row, self.columns["prompt"])
        query = text_field(row, self.columns.get("query"), optional=True)
        text = f"{prompt}\n{query}" if prompt and query else prompt or query
        if is_blank(text):
            raise RowError(
                "E-DATA-012", "an empty prompt" if self.stage == "sft" else "an empty text", self.columns["prompt"]
            )
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
