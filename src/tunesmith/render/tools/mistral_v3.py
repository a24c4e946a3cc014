"""Mistral Nemo (v3 tekken): a JSON list behind `[TOOL_CALLS]`, each call with an id of nine characters."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.core.types import ToolCall
from tunesmith.render.tools.base import Piece, Tool
from tunesmith.render.tools.json_forms import JsonList, to_json
from tunesmith.render.tools.schemas import function_of

__all__ = ["MistralV3", "nine_characters"]

_NINE = re.compile(r"[A-Za-z0-9]{9}")


def nine_characters(call_id: str | None, position: int) -> str:
    """The id if it has Mistral's form, else nine characters that follow from it. Mistral's templates refuse others."""
    if call_id is not None and _NINE.fullmatch(call_id):
        return call_id
    return hashlib.sha256((call_id or f"call {position}").encode()).hexdigest()[:9]


class MistralV3(JsonList):
    name = "mistral_v3"
    refuses = ("text beside a call: the model's template leaves it out",)
    opens = ("[TOOL_CALLS]",)
    before = "[TOOL_CALLS]"
    takes_content = False
    writes_ids = True

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        schemas = ", ".join(_declare(function_of(tool)) for tool in tools)
        return [("[AVAILABLE_TOOLS][", True), (schemas, False), ("][/AVAILABLE_TOOLS]", True)]

    def call_id(self, call: ToolCall, position: int) -> str | None:
        return nine_characters(call.id, position)


def _declare(function: Mapping[str, Any]) -> str:
    # Texts stand within quotes without being escaped: so the model's own template does it.
    pairs = (
        f'"{key}": "{value}"' if isinstance(value, str) else f'"{key}": {to_json(value)}'
        for key, value in function.items()
        if key != "return"
    )
    return '{"type": "function", "function": {' + ", ".join(pairs) + "}}"
