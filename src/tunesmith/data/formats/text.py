"""Plain text for pre-training: one document per row, in the column `text` or `content`."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.types import Origin, Text
from tunesmith.data.formats.base import Format, Row, is_blank, stages, text_field
from tunesmith.data.rows import RowError

__all__ = ["PlainText"]


class PlainText(Format):
    default_columns: ClassVar = {"prompt": "text"}
    needed: ClassVar = stages(document=("prompt",))

    def document(self, row: Row, origin: Origin) -> Text:
        column = self.columns["prompt"]
        text = text_field(row, column)
        if is_blank(text):
            raise RowError("E-DATA-012", "an empty text", column)
        return Text(text, origin)
