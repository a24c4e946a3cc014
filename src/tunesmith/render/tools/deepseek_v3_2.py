"""DeepSeek V3.2: named parameters in DSML tags that say whether a value is a string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith.render.tools.base import Piece, Tool
from tunesmith.render.tools.json_forms import to_json
from tunesmith.render.tools.markup_forms import MARKUP, NamedParameters, json_text
from tunesmith.render.tools.schemas import function_of

__all__ = ["DeepSeekV32"]

_HEAD = """## Tools

You have access to a set of tools you can use to answer the user's question.
You can invoke functions by writing a "<｜DSML｜function_calls>" block like the following as part of your reply to \
the user:
<｜DSML｜function_calls>
<｜DSML｜invoke name="$FUNCTION_NAME">
<｜DSML｜parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</｜DSML｜parameter>
...
</｜DSML｜invoke>
<｜DSML｜invoke name="$FUNCTION_NAME2">
...
</｜DSML｜invoke>
</｜DSML｜function_calls>

String and scalar parameters should be specified as is without any escaping or quotes, while lists and objects should \
use JSON format. The "string" attribute should be set to "true" for string type parameters and "false" for other types \
(numbers, booleans, arrays, objects).

If the thinking_mode is enabled, then after function results you should strongly consider outputting a thinking block. \
Here is an example:

<｜DSML｜function_calls>
...
</｜DSML｜function_calls>

<function_results>
...
</function_results>

<think>...thinking about results</think>

Here are the functions available in JSONSchema format:
<functions>
"""


class DeepSeekV32(NamedParameters):
    name = "deepseek_v3_2"
    refuses = (MARKUP,)
    opens = ("<｜DSML｜function_calls>",)
    block = ("<｜DSML｜function_calls>\n", "</｜DSML｜function_calls>")
    function = ('<｜DSML｜invoke name="%">\n', "</｜DSML｜invoke>\n")
    parameter = ('<｜DSML｜parameter name="%" string="@">', "</｜DSML｜parameter>\n")
    one_block_each = False
    gap, gap_always = "\n\n", True

    @staticmethod
    def value(value: Any) -> str:
        return json_text(value)

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        schemas = "".join(to_json(function_of(tool)) + "\n" for tool in tools)
        return [(_HEAD, True), (schemas, False), ("</functions>\n", True)]
