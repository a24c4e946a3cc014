"""How chats become text, and which of it is trained."""

from __future__ import annotations

from typing import Literal

from tunesmith.config.fields import section, works


@section
class TemplateConfig:
    """The chat template and the mask."""

    template: str | None = works(None)
    """Name of a chat template; left out or `auto`: the one that the model brings."""
    train_on_prompt: bool = works(False)
    """Train on prompts too."""
    mask_history: bool = works(False)
    """Train on the last reply of a chat only; the same as `train_turns: last`."""
    train_turns: Literal["all", "last"] = works("all")
    """Which replies of a chat are trained."""
    loss_weights: str | None = works(None)
    """YAML file with rules for the weight of trained text in the loss: a list of `{pattern: REGEX, weight: NUMBER}`."""
    tool_format: str | None = works(None)
    """Dialect of tool calls, instead of the named template's own; docs/tools.md lists them."""
    default_system: str | None = works(None, empty=True)
    """System message for chats that have none; an empty text means no system message."""
    enable_thinking: bool | None = works(True)
    """true: replies without thoughts learn an empty thought; false: no thoughts; null: as the data has it."""
    template_check: Literal["off", "warn", "strict"] = works("warn")
    """What a named template is to do where its text differs from the model's own on the run's rows."""
    preserve_thinking: bool = works(False)
    """Keep the thoughts of earlier turns."""
