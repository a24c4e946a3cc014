"""Devstral 2507, Ministral 3 and later (v13): `[TOOL_CALLS]name[ARGS]{...}` for each call, text in front."""

from __future__ import annotations

from tunesmith.render.tools.mistral_v11 import MistralV11

__all__ = ["MistralV13"]


class MistralV13(MistralV11):
    name = "mistral_v13"
    refuses = ()
    takes_content = True
    writes_ids = False
