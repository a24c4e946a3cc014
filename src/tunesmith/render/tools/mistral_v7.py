"""Mistral Small and Ministral with the v7 tokenizer, as LlamaFactory writes them: no blank behind `[TOOL_CALLS]`."""

from __future__ import annotations

from tunesmith.render.tools.mistral import Mistral

__all__ = ["MistralV7"]


class MistralV7(Mistral):
    name = "mistral_v7"
    before = "[TOOL_CALLS]"
