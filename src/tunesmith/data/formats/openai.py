"""OpenAI rows: `{"messages": [{"role": "user", "content": ...}, ...], "tools": [...]}`, tool calls, thoughts."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.data.formats.conversation import Conversation
from tunesmith.data.formats.media import COLUMN_NAMES

__all__ = ["OpenAI"]


class OpenAI(Conversation):
    """Content is text, or a list of parts of type `text`. `weight: 0` leaves an answer untrained, as at OpenAI."""

    default_columns: ClassVar = {
        "messages": "messages",
        "system": "system",
        "tools": "tools",
        "chosen": "chosen",
        "rejected": "rejected",
        "margin": "margin",
        "kto_tag": "label",
        **COLUMN_NAMES,
    }
