"""Qwen3-Coder: tags around names and values, for the tools as well."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.render.tools.base import Piece, Tool
from tunesmith.render.tools.qwen_tags import REMINDERS, QwenTags, declare
from tunesmith.render.tools.schemas import function_of

__all__ = ["Qwen3Coder"]

_RULES = (
    "\n</tools>\n\nIf you choose to call a tool ONLY reply in the following format with NO suffix:\n\n"
    "<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>\nvalue_1\n</parameter>\n"
    "<parameter=example_parameter_2>\nvalue_2\n</parameter>\n</function>\n</tool_call>\n\n<IMPORTANT>\nReminder:\n"
    "- Function calls MUST follow the specified format: the tool calling block MUST begin with an opening "
    "<tool_call> tag and end with a closing </tool_call> tag.\n"
) + REMINDERS


class Qwen3Coder(QwenTags):
    name = "qwen3_coder"

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        head = "# Tools\n\nYou have access to the following tools:\n\n<tools>"
        return [(head, True), ("".join(declare(function_of(tool)) for tool in tools), False), (_RULES, True)]
