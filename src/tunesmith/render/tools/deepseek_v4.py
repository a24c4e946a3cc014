"""DeepSeek V4: V3.2's tags under another name of the block."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.types import ToolCall
from tunesmith.render.tools.base import Piece, Tool
from tunesmith.render.tools.deepseek_v3_2 import DeepSeekV32
from tunesmith.render.tools.json_forms import to_json
from tunesmith.render.tools.schemas import function_of

__all__ = ["DeepSeekV4"]

_HEAD = """## Tools

You have access to a set of tools to help answer the user's question. You can invoke tools by writing a \
"<｜DSML｜tool_calls>" block like the following:

<｜DSML｜tool_calls>
<｜DSML｜invoke name="$TOOL_NAME">
<｜DSML｜parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</｜DSML｜parameter>
...
</｜DSML｜invoke>
<｜DSML｜invoke name="$TOOL_NAME2">
...
</｜DSML｜invoke>
</｜DSML｜tool_calls>

String parameters should be specified as is and set `string="true"`. For all other types (numbers, booleans, arrays, \
objects), pass the value in JSON format and set `string="false"`.

If thinking_mode is enabled (triggered by <think>), you MUST output your complete reasoning inside <think>...</think> \
BEFORE any tool calls or final response.

Otherwise, output directly after </think> with tool calls or final response.

### Available Tool Schemas

"""
_TAIL = "\nYou MUST strictly follow the above defined tool name and parameter schemas to invoke tool calls.\n"


class DeepSeekV4(DeepSeekV32):
    name = "deepseek_v4"
    opens = ("<｜DSML｜tool_calls>",)
    block = ("<｜DSML｜tool_calls>\n", "</｜DSML｜tool_calls>")

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        return [(_HEAD, True), ("".join(to_json(function_of(tool)) + "\n" for tool in tools), False), (_TAIL, True)]

    def _write_call(self, call: ToolCall) -> list[Piece]:
        pieces = super()._write_call(call)
        return pieces if call.arguments else [*pieces[:-1], ("\n", True), pieces[-1]]
