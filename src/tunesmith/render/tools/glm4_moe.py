"""GLM 4.5 and 4.6: keys and values in pairs of tags, one a line."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.render.tools.base import Piece, Tool
from tunesmith.render.tools.json_forms import to_json
from tunesmith.render.tools.markup_forms import ArgumentPairs
from tunesmith.render.tools.qwen import HEAD
from tunesmith.render.tools.schemas import wrapped

__all__ = ["GLM_RULES", "Glm4Moe"]

GLM_RULES = (
    "\n</tools>\n\nFor each function call, output the function name and arguments within the following XML format:\n"
)
_FORM = (
    "<tool_call>{function-name}\n<arg_key>{arg-key-1}</arg_key>\n<arg_value>{arg-value-1}</arg_value>\n"
    "<arg_key>{arg-key-2}</arg_key>\n<arg_value>{arg-value-2}</arg_value>\n...\n</tool_call>"
)


class Glm4Moe(ArgumentPairs):
    name = "glm4_moe"
    after_name, between, after_pair, join = "\n", "\n", "\n", "\n"
    gap, gap_always = "\n", True

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        schemas = "".join("\n" + to_json(wrapped(tool)) for tool in tools)
        return [(HEAD, True), (schemas, False), (GLM_RULES + _FORM, True)]
