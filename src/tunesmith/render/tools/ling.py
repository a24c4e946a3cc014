"""Ling and Ring (Bailing v2): Qwen's form, and a switch for thinking behind the tools."""

from __future__ import annotations

from tunesmith.render.tools.qwen import Qwen

__all__ = ["Ling"]


class Ling(Qwen):
    name = "ling"
    set_off = ""
    tail = Qwen.tail + "\ndetailed thinking off"
