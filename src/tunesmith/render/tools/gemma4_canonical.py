"""Gemma 4 as its template of July 2026 has it: `null` where there was `None`, and no argument left out by its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tunesmith.core.types import ToolCall
from tunesmith.render.tools.base import Piece
from tunesmith.render.tools.gemma4 import Gemma4

__all__ = ["Gemma4Canonical"]


class _Null:
    """A value that is nothing, as it is to be written."""

    def __str__(self) -> str:
        return "null"


class Gemma4Canonical(Gemma4):
    name = "gemma4_canonical"
    all_names = True

    def _write(self, calls: Sequence[ToolCall], earlier: int) -> list[Piece]:
        return super()._write([replace(call, arguments=_nulls(call.arguments)) for call in calls], earlier)


def _nulls(value: Any) -> Any:
    if value is None:
        return _Null()
    if isinstance(value, Mapping):
        return {key: _nulls(inner) for key, inner in value.items()}
    return [_nulls(inner) for inner in value] if isinstance(value, list | tuple) else value
