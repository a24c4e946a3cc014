"""Granite 3: a JSON list behind `<|tool_call|>`. Its template says so in words and writes no calls itself."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.render.tools.base import Piece, Tool
from tunesmith.render.tools.json_forms import JsonList, to_json
from tunesmith.render.tools.schemas import wrapped

__all__ = ["Granite"]


class Granite(JsonList):
    name = "granite"
    refuses = ()
    opens = ("<|tool_call|>",)
    before = "<|tool_call|>"

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        """The content of the message of role `available_tools`."""
        return [(to_json([wrapped(tool) for tool in tools], indent=4), False)]
