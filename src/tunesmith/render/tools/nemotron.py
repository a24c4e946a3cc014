"""Nemotron 3: Qwen3-Coder's tags with another order of a schema's keys, and a line end behind each call."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.render.tools.base import Piece, Tool
from tunesmith.render.tools.qwen3_5 import QWEN_RULES
from tunesmith.render.tools.qwen_tags import QwenTags, declare
from tunesmith.render.tools.schemas import function_of

__all__ = ["Nemotron"]


class Nemotron(QwenTags):
    name = "nemotron"
    gap = "\n"
    behind = "\n"

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        head = "# Tools\n\nYou have access to the following functions:\n\n<tools>"
        declared = "".join(declare(function_of(tool), enum_first=True, required_last=True) for tool in tools)
        return [(head, True), (declared, False), (QWEN_RULES, True)]
