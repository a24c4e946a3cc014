"""Qwen 2.5, QwQ and Qwen 3 (also MiMo): JSON between `<tool_call>` tags."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.render.tools.base import Piece, Tool
from tunesmith.render.tools.json_forms import TaggedJson, to_json
from tunesmith.render.tools.schemas import wrapped

__all__ = ["Qwen"]

HEAD = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)


class Qwen(TaggedJson):
    name = "qwen"
    refuses = ()
    opens = ("<tool_call>",)
    open, close = "<tool_call>\n", "\n</tool_call>"
    gap = "\n"

    tail = (
        "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
        '<tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n'
        "</tool_call>"
    )

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        return [(HEAD, True), ("".join("\n" + to_json(wrapped(tool)) for tool in tools), False), (self.tail, True)]
