"""Rules about memory: what saves some goes with some settings only."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.config.check_table import Check, contradiction, rules_into
from tunesmith.config.optimizer_facts import OPTIMIZERS, SWITCHES, optimizer_of, steps_in_backward
from tunesmith.config.run_config import RunConfig
from tunesmith.core.errors import Problem

__all__ = ["MEMORY_CHECKS"]

MEMORY_CHECKS: list[Check] = []
_rule = rules_into(MEMORY_CHECKS)
_TRAIN = ("train",)
_STEP_ALONE = tuple(facts.name for facts in OPTIMIZERS.values() if facts.in_backward and not facts.ours)


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
    if model.flash_attn == "flex":
        what = f'"{key}: selective" keeps what single operations give, and "flash_attn: flex" is compiled into one'
        yield contradiction(config, key, what, "flash_attn: auto, or gradient_checkpointing_mode: full")


@_rule(_TRAIN, "gradient_checkpointing_mode", "torch_compile", "use_unsloth_gc")
def _what_is_moved_is_not_compiled(config: RunConfig) -> Iterator[Problem]:
    model, train = config.model, config.train
    compiled = train.value("torch_compile") or train.value("torch_compile_backend") or train.value("torch_compile_mode")
    if compiled and model.gradient_checkpointing_mode == "offload" and not model.disable_gradient_checkpointing:
        key = "gradient_checkpointing_mode" if "gradient_checkpointing_mode" in config.values else "use_unsloth_gc"
        what = f'"{key}" moves activations by hooks, which torch.compile does not take along'
        yield contradiction(config, "torch_compile", what, "gradient_checkpointing_mode: full, or no torch_compile")


@_rule(
    _TRAIN,
    "optimizer_in_bwd",
    *("gradient_accumulation_steps", "max_grad_norm", "fp16", "optim", "adafactor", "auto_find_batch_size"),
    *SWITCHES,
)
def _a_step_in_backward_sees_one_gradient(config: RunConfig) -> Iterator[Problem]:
    if not config.optimizer.optimizer_in_bwd:
        return
    value, facts = config.train.value, optimizer_of(config)
    broken = {
        "gradient_accumulation_steps": ("adds no gradients up", value("gradient_accumulation_steps") != 1, "1"),
        "max_grad_norm": ("cannot clip by the norm of all gradients", bool(value("max_grad_norm")), "0"),
        "fp16": ("knows no factor of the loss", bool(value("fp16")), "false, and bf16: true"),
        "optim": (f"does not go with {facts.asked}", not facts.in_backward, " or ".join(_STEP_ALONE)),
        "auto_find_batch_size": ("cannot take a step back", bool(value("auto_find_batch_size")), "false"),
    }
    for key, (reason, is_broken, fix) in broken.items():
        if is_broken:
            yield contradiction(config, key, f'"optimizer_in_bwd" {reason}', f"{key}: {fix}")


@_rule(_TRAIN, "on_nonfinite", "optimizer_in_bwd", "galore_layerwise", "apollo_layerwise", *SWITCHES)
def _what_is_done_in_backward_cannot_be_skipped(config: RunConfig) -> Iterator[Problem]:
    if config.train.on_nonfinite == "skip" and (key := steps_in_backward(config)):
        what = f'"on_nonfinite: skip" comes too late with "{key}", which changes weights in the backward pass'
        yield contradiction(config, "on_nonfinite", what, "on_nonfinite: rollback")
