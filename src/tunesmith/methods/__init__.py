"""Which weights train, and how they become part of the model again. One file and one line here per method."""

from __future__ import annotations

from tunesmith.core.registry import Registry
from tunesmith.methods.base import Method

__all__ = ["METHODS", "Method"]

METHODS: Registry[type[Method]] = Registry("finetuning_type", code="E-METHOD-001")
METHODS.add("full", "tunesmith.methods.full:Full")
METHODS.add("freeze", "tunesmith.methods.freeze:Freeze")
METHODS.add("lora", "tunesmith.methods.lora:Lora")
METHODS.add("oft", "tunesmith.methods.oft:Oft")
METHODS.add("peft", "tunesmith.methods.tuner:AnyTuner")
