"""What is optimised: a stage's name, what data it needs, and a batch's loss as a sum over units.

One file and one line here per objective. The Trainer knows none of them.
"""

from __future__ import annotations

from tunesmith.core.registry import Registry
from tunesmith.objectives.base import LossOutput, Needs, Objective, Reference

__all__ = ["OBJECTIVES", "LossOutput", "Needs", "Objective", "Reference"]

OBJECTIVES: Registry[type[Objective]] = Registry("stage", code="E-TRAIN-001")
OBJECTIVES.add("sft", "tunesmith.objectives.sft:SupervisedFineTuning")
OBJECTIVES.add("dpo", "tunesmith.objectives.dpo:PairwisePreference")
OBJECTIVES.add("kto", "tunesmith.objectives.kto:AnswerFeedback")
OBJECTIVES.add("rm", "tunesmith.objectives.rm:RewardModelling")
OBJECTIVES.add("pt", "tunesmith.objectives.pt:PreTraining")
