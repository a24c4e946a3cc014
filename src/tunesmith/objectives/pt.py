"""Pre-training: cross-entropy at every token of plain text. The same arithmetic as sft on another kind of row.

Losses that weigh tokens by what the model says are for fine-tuning, here as in LlamaFactory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar

from tunesmith.core.types import Text
from tunesmith.objectives.base import Needs
from tunesmith.objectives.sft import SupervisedFineTuning

if TYPE_CHECKING:
    from tunesmith.config.objective import ObjectiveConfig
    from tunesmith.losses.token import TokenLoss

__all__ = ["PreTraining"]


class PreTraining(SupervisedFineTuning):
    needs: ClassVar[Needs] = Needs(example=Text)
    losses: ClassVar[Mapping[str, Callable[[ObjectiveConfig], TokenLoss]]] = {}
