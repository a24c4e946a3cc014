"""GLM 4.7: GLM 4.6's form without line ends."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.render.tools.base import Piece, Tool
from tunesmith.render.tools.glm4_moe import GLM_RULES
from tunesmith.render.tools.json_forms import to_json
from tunesmith.render.tools.markup_forms import ArgumentPairs
from tunesmith.render.tools.qwen import HEAD
from tunesmith.render.tools.schemas import wrapped

__all__ = ["Glm47"]

_FORM = (
    "<tool_call>{function-name}<arg_key>{arg-key-1}</arg_key><arg_value>{arg-value-1}</arg_value>"
    "<arg_key>{arg-key-2}</arg_key><arg_value>{arg-value-2}</arg_value>...</tool_call>"
)


class Glm47(ArgumentPairs):
    name = "glm4_7"
    after_name, between, after_pair, join = "", "", "", ""

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        schemas = "".join("\n" + to_json(wrapped(tool)) for tool in tools)
        return [(HEAD, True), (schemas, False), (GLM_RULES + _FORM, True)]
