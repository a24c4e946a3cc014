"""TRL's rows: `prompt` and `completion`, `chosen` and `rejected`, `label`; each text or a list of messages."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.types import Message, Origin
from tunesmith.data.formats.base import Row, is_blank, missing, stages, text_field
from tunesmith.data.formats.chats import ChatFormat, Tools
from tunesmith.data.formats.media import COLUMN_NAMES
from tunesmith.data.formats.pairs import without_prompt
from tunesmith.data.rows import RowError

__all__ = ["TRL"]


class TRL(ChatFormat):
    """A prompt, as text or as messages, and what follows it. The answers may repeat the prompt at their beginning; of
    pairs that are whole conversations the prompt may be left out.

    https://huggingface.co/docs/trl/dataset_formats
    """

    default_columns: ClassVar = {
        "prompt": "prompt",
        "response": "completion",
        "chosen": "chosen",
        "rejected": "rejected",
        "margin": "margin",
        "kto_tag": "label",
        "system": "system",
        "tools": "tools",
        **COLUMN_NAMES,
    }
    needed: ClassVar = stages(
        chat=("prompt", "response"),
        preference=("chosen", "rejected"),
        feedback=("prompt", "response", "kto_tag"),
        prompt=("prompt",),
    )
    prompt_columns = ("prompt", "system", "tools")

    def opening(self, row: Row, origin: Origin, tools: Tools) -> list[Message] | None:
        column = self.columns.get("prompt")
        value = None if column is None else row.get(column)
        if column is None or value is None:
            if self.stage_kind != "preference":
                missing(row, column)
            return None
        if isinstance(value, str):
            text = text_field(row, column)
            if is_blank(text):
                raise RowError("E-DATA-012", "an empty prompt", column)
            return self.with_system([Message("user", text)], row)
        return self.with_system(self.messages(row, column, origin, tools), row)

    def whole(self, row: Row, origin: Origin, tools: Tools) -> tuple[list[Message], list[Message]]:
        prompt, column = self.opening(row, origin, tools) or [], self.columns["response"]
        return prompt, without_prompt(prompt, self.messages(row, column, origin, tools), column)
