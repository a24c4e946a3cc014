"""Rules about memory: what saves some goes with some settings only."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.config.check_table import Check, contradiction, rules_into
from tunesmith.config.run_config import RunConfig
from tunesmith.core.errors import Problem

__all__ = ["MEMORY_CHECKS"]

MEMORY_CHECKS: list[Check] = []
_rule = rules_into(MEMORY_CHECKS)
_TRAIN = ("train",)


@_rule(_TRAIN, "gradient_checkpointing_mode", "use_reentrant_gc", "flash_attn")
def _selective_can_tell_what_it_keeps(config: RunConfig) -> Iterator[Problem]:
    model = config.model
    if model.disable_gradient_checkpointing or model.gradient_checkpointing_mode != "selective":
        return
    key = "gradient_checkpointing_mode"
    if config.values.get("use_reentrant_gc"):
        what = f'"{key}: selective" is of the kind of checkpointing that is not re-entrant'
        yield contradiction(config, key, what, "use_reentrant_gc: false, or leave it out")
    if model.flash_attn == "disabled":
        what = f'"{key}: selective" keeps the output of an attention kernel, and "flash_attn: disabled" has none'
        yield contradiction(config, key, what, "flash_attn: auto, or gradient_checkpointing_mode: full")


@_rule(_TRAIN, "gradient_checkpointing_mode", "torch_compile", "use_unsloth_gc")
def _what_is_moved_is_not_compiled(config: RunConfig) -> Iterator[Problem]:
    model, train = config.model, config.train
    compiled = train.value("torch_compile") or train.value("torch_compile_backend") or train.value("torch_compile_mode")
    if compiled and model.gradient_checkpointing_mode == "offload" and not model.disable_gradient_checkpointing:
        key = "gradient_checkpointing_mode" if "gradient_checkpointing_mode" in config.values else "use_unsloth_gc"
        what = f'"{key}" moves activations by hooks, which torch.compile does not take along'
        yield contradiction(config, "torch_compile", what, "gradient_checkpointing_mode: full, or no torch_compile")
