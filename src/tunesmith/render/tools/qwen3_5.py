"""Qwen 3.5 and 3.6: tags around names and values; tools as JSON."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.render.tools.base import Piece, Tool
from tunesmith.render.tools.json_forms import to_json
from tunesmith.render.tools.qwen_tags import REMINDERS, QwenTags
from tunesmith.render.tools.schemas import wrapped

__all__ = ["QWEN_RULES", "Qwen35"]

QWEN_RULES = (
    "\n</tools>\n\nIf you choose to call a function ONLY reply in the following format with NO suffix:\n\n"
    "<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>\nvalue_1\n</parameter>\n"
    "<parameter=example_parameter_2>\nThis is the value for the second parameter\nthat can span\nmultiple lines\n"
    "</parameter>\n</function>\n</tool_call>\n\n<IMPORTANT>\nReminder:\n"
    "- Function calls MUST follow the specified format: an inner <function=...></function> block must be nested "
    "within <tool_call></tool_call> XML tags\n"
) + REMINDERS


class Qwen35(QwenTags):
    name = "qwen3_5"

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        head = "# Tools\n\nYou have access to the following functions:\n\n<tools>"
        return [(head, True), ("".join("\n" + to_json(wrapped(tool)) for tool in tools), False), (QWEN_RULES, True)]
