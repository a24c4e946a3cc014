"""GLM-4 and ChatGLM 3: the function's name, a line end, and JSON; nothing else in the turn."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from tunesmith.core.types import ToolCall
from tunesmith.render.tools.base import Dialect, Found, Piece, Tool
from tunesmith.render.tools.json_forms import read_json, to_json
from tunesmith.render.tools.schemas import Schemas, function_of

__all__ = ["Glm4"]

_HEAD = (
    "你是一个名为 ChatGLM 的人工智能助手。你是基于智谱 AI 公司训练的语言模型 GLM-4 模型开发的，"
    "你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n# 可用工具"
)
_NAME = re.compile(r"\s*([^\s{}\[\]\"]+)[ \t]*\n(?=\s*\{)")


class Glm4(Dialect):
    name = "glm4"
    set_off = ""
    refuses = ("more than one call in a turn", "text beside a call", "a function name with blanks")
    opens = ()
    takes_content = False
    max_calls = 1
    in_content = False

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        pieces: list[Piece] = [(_HEAD, True)]
        for function in map(function_of, tools):
            pieces += [("\n\n## ", True), (f"{function['name']}\n\n{to_json(dict(function), indent=4)}", False)]
            pieces.append(("\n在调用上述函数时，请使用 Json 格式表示调用的参数。", True))
        return pieces

    def _write(self, calls: Sequence[ToolCall], earlier: int) -> list[Piece]:
        return [(calls[0].name, False), ("\n", True), (to_json(dict(calls[0].arguments)), False)]

    def _starts(self, text: str) -> Iterator[int]:
        yield 0

    def _read(self, text: str, start: int, schemas: Schemas) -> Found | None:
        name = _NAME.match(text)
        found = read_json(text, name.end()) if name else None
        if not name or not found or not isinstance(found[0], Mapping) or text[found[1] :].strip():
            return None
        return [ToolCall(name.group(1), found[0])], len(text)
