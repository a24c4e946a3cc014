"""Mistral Small 3.2 (v11): `[TOOL_CALLS]name[CALL_ID]id[ARGS]{...}` for each call."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

from tunesmith.core.types import ToolCall
from tunesmith.render.tools.base import Dialect, Found, Piece, Tool
from tunesmith.render.tools.json_forms import read_json, to_json
from tunesmith.render.tools.mistral_v3 import nine_characters
from tunesmith.render.tools.schemas import Schemas, wrapped

__all__ = ["MistralV11"]

_HEAD = re.compile(r"\[TOOL_CALLS\]\s*([^\[\]{}]+?)\s*(?:\[CALL_ID\]([^\[\]{}]*))?\[ARGS\]")


class MistralV11(Dialect):
    name = "mistral_v11"
    refuses: ClassVar[tuple[str, ...]] = ("text beside a call: the model's template leaves it out",)
    opens = ("[TOOL_CALLS]",)
    takes_content = False
    writes_ids = True

    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        schemas = to_json([wrapped(tool) for tool in tools])
        return [("[AVAILABLE_TOOLS]", True), (schemas, False), ("[/AVAILABLE_TOOLS]", True)]

    def call_id(self, call: ToolCall, position: int) -> str | None:
        return nine_characters(call.id, position) if self.writes_ids else None

    def _write(self, calls: Sequence[ToolCall], earlier: int) -> list[Piece]:
        pieces: list[Piece] = []
        for index, call in enumerate(calls):
            pieces += [("[TOOL_CALLS]", True), (call.name, False)]
            call_id = self.call_id(call, earlier + index)
            if call_id is not None:
                pieces += [("[CALL_ID]", True), (call_id, False)]
            pieces += [("[ARGS]", True), (to_json(dict(call.arguments)), False)]
        return pieces

    def _read(self, text: str, start: int, schemas: Schemas) -> Found | None:
        head = _HEAD.match(text, start)
        found = read_json(text, head.end()) if head else None
        if not head or not found or not isinstance(found[0], Mapping):
            return None
        return [ToolCall(head.group(1), found[0], head.group(2) or None)], found[1]
