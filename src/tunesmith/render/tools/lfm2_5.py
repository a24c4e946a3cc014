"""LFM2.5: LFM2's form, with strings between single quotes as they are, without escapes.

So the model's own template writes them: `title='it's here'`. A string ends at a quote behind which a call goes on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tunesmith.render.tools.base import Piece, Tool
from tunesmith.render.tools.json_forms import to_json
from tunesmith.render.tools.lfm2 import END, Lfm2
from tunesmith.render.tools.literals import Reader, read_literal
from tunesmith.render.tools.schemas import wrapped

__all__ = ["Lfm25"]

_WORD = r"[^\s()\[\]{},='\"]+"
_ENDS = re.compile(rf"'(?=\s*(?:,\s*{_WORD}=|\)\s*(?:,\s*{_WORD}\(|\]\s*(?:{re.escape(END)}|$))))")


def _read_value(text: str, position: int) -> tuple[Any, int]:
    if not text.startswith("'", position):
        return read_literal(text, position)
    end = _ENDS.search(text, position + 1)
    if not end:
        raise ValueError("a string without an end")
    return text[position + 1 : end.start()], end.end()


class Lfm25(Lfm2):
    name = "lfm2_5"
    refuses = (
        "a string with a quote behind which a call seems to go on",
        "names with brackets, quotes, commas, equals signs or blanks",
    )
    read_value: Reader = staticmethod(_read_value)

    @staticmethod
    def value(value: Any) -> str:
        if isinstance(value, str):
            return f"'{value}'"
        return to_json(value) if isinstance(value, dict) else str(value)

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        schemas = ", ".join(to_json(wrapped(tool)) for tool in tools)
        return [("List of tools: [", True), (schemas, False), ("]", True)]
