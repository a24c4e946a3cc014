"""Qwen 3.6: Qwen 3.5's tags, with `true` and `null` as JSON writes them."""

from __future__ import annotations

from typing import Any

from tunesmith.render.tools.markup_forms import json_text
from tunesmith.render.tools.qwen3_5 import Qwen35

__all__ = ["Qwen36"]


class Qwen36(Qwen35):
    name = "qwen3_6"

    @staticmethod
    def value(value: Any) -> str:
        return json_text(value)
