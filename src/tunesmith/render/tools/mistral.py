"""Mistral 7B v0.3 and its kin as LlamaFactory writes them: a JSON list behind `[TOOL_CALLS] `."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.render.tools.base import Piece, Tool
from tunesmith.render.tools.json_forms import JsonList, to_json
from tunesmith.render.tools.schemas import wrapped

__all__ = ["Mistral"]


class Mistral(JsonList):
    name = "mistral"
    set_off = ""
    refuses = ()
    opens = ("[TOOL_CALLS]",)
    before = "[TOOL_CALLS] "

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        schemas = to_json([wrapped(tool) for tool in tools])
        return [("[AVAILABLE_TOOLS] ", True), (schemas, False), ("[/AVAILABLE_TOOLS]", True)]
