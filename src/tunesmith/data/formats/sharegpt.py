"""ShareGPT rows: `{"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}`."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.data.formats.conversation import Conversation
from tunesmith.data.formats.media import COLUMN_NAMES

__all__ = ["ShareGPT"]


class ShareGPT(Conversation):
    """A `function_call` message is JSON, one call or a list; an `observation` is what the tool gave back."""

    default_columns: ClassVar = {
        "messages": "conversations",
        "system": "system",
        "tools": "tools",
        "chosen": "chosen",
        "rejected": "rejected",
        "margin": "margin",
        "kto_tag": "kto_tag",
        **COLUMN_NAMES,
    }
    say_from = True
