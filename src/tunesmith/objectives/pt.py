"""Pre-training: cross-entropy at every token of plain text. The same arithmetic as sft on another kind of row."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.types import Text
from tunesmith.objectives.base import Needs
from tunesmith.objectives.sft import SupervisedFineTuning

__all__ = ["PreTraining"]


class PreTraining(SupervisedFineTuning):
    needs: ClassVar[Needs] = Needs(example=Text)
