"""Everything a run derives from its config and from the machine, decided once and printed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.config.depth_checks import refuse_pairs
from tunesmith.config.optimizer_facts import OPTIMIZERS, optimizer_of, steps_in_backward
from tunesmith.config.plan import RunPlan
from tunesmith.config.tuners import TUNERS, Tuner
from tunesmith.core import env
from tunesmith.core.errors import MachineError, Problem, UsageError
from tunesmith.core.log import get_logger
from tunesmith.data.formats.base import KINDS
from tunesmith.models.depth_plan import plan_depths
from tunesmith.models.kernels import check_kernel, installed_kernel
from tunesmith.models.load import ATTENTION, settings_of
from tunesmith.models.machine import pick_device

if TYPE_CHECKING:
    from tunesmith.config import RunConfig
    from tunesmith.models.fast_path import FastPath

__all__ = ["as_before", "check_depths", "resolve_plan", "what_rules_out", "with_fast_path"]

_DEFAULT_BATCH = 8  # transformers' own default of per_device_train_batch_size


def resolve_plan(config: RunConfig) -> RunPlan:
    """The plan of a training run, before the model's config is read: `with_fast_path` adds what that tells, and the run
    the checkpoint that it goes on from. Raises
    MachineError where the machine cannot do what is asked."""
    hf = config.train.hf
    device = pick_device(bool(hf.get("use_cpu")))
    half = _half_precision(config, device)
    pure = config.method.pure_bf16
    check_kernel("auto" if config.model.shift_attn else config.model.flash_attn, device, half or "float32")
    _check_processes(config, env.get_int("WORLD_SIZE"))
    _check_package(config, device)
    batch = int(hf.get("per_device_train_batch_size", _DEFAULT_BATCH))
    accumulation = int(hf.get("gradient_accumulation_steps", 1))
    world_size = env.get_int("WORLD_SIZE")
    return RunPlan(
        stage=config.objective.stage,
        finetuning_type=config.method.finetuning_type,
        device=device,
        dtype="bfloat16" if pure else half or "float32",
        autocast=None if pure else half,
        attention=ATTENTION[config.model.flash_attn],
        batches="padded",
        loss="kept",
        packing=config.data.packs(config.objective.stage),
        world_size=world_size,
        per_device_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        global_batch_size=batch * accumulation * world_size,
        order=_order(config, "random"),
        seed=int(hf.get("seed", 42)),
        cutoff_len=config.data.cutoff_len,
        gradient_checkpointing=_checkpointing(config, device),
        resume=None,
        output_dir=str(Path(str(config.train.output_dir)).expanduser()),
    )


def what_rules_out(plan: RunPlan, config: RunConfig, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What of a run rules a quick way out or in, as `plan_fast_path` takes it. `before`: what a checkpoint recorded of
    the run that is resumed, as `as_before` takes it."""
    noisy = bool(config.train.hf.get("neftune_noise_alpha"))
    half = "float16" in (plan.dtype, plan.autocast)
    padded = before is not None and before.get("batches") == "padded"
    no_flat = "neftune_noise_alpha makes noise by the length of a padded row" if noisy else _adapter_pads(config)
    return {
        "no_flat": no_flat or ("so did the run that is resumed" if padded else None),
        "no_chunks": "float16 has no place for the smallest gradients before they are scaled" if half else None,
        "kernel": installed_kernel(plan.device, plan.autocast or plan.dtype),
        "shares": KINDS[plan.stage] == "preference" and config.objective.prefix_sharing == "auto",
    }


def check_depths(config: RunConfig) -> None:
    """Raises what `plan_depths` raises, and UsageError where a run does not go with a mixture of depths."""
    settings = settings_of(config.model)
    if plan_depths(config.model, settings) is not None:
        refuse_pairs(config)


def _tuner(config: RunConfig) -> Tuner | None:
    return TUNERS.get(str(config.method.peft_type).lower()) if config.method.finetuning_type == "peft" else None


def _adapter_pads(config: RunConfig) -> str | None:
    tuner = _tuner(config)
    return tuner.padded if tuner is not None else None


def as_before(plan: RunPlan, before: Mapping[str, Any], allowed: Collection[str] = ()) -> RunPlan:
    """The plan of a resumed run with the order of rows that its checkpoint recorded.

    before: `order` and `batches` of a RunPlan, others are not looked at. allowed: keys that may differ from the run
    that is resumed. Raises MachineError where that run read flat batches and this one cannot, unless `fast_path` is
    allowed to differ. (Where it read padded ones, `what_rules_out` has this one read such too.)
    """
    if before["batches"] == "flat" and plan.batches != "flat" and "fast_path" not in allowed:
        what = "the checkpoint's run read flat batches, which cannot be had here: it would not go on to the bit"
        got = f"{plan.batches} batches (the log says why)"
        fix = "resume_allow: fast_path goes on with padded ones, equal but for rounding; or go on where it ran before"
        raise MachineError(Problem("E-TRAIN-054", what, f"resume_from_checkpoint: {plan.resume}", got, fix))
    return replace(plan, order=before["order"])


def with_fast_path(plan: RunPlan, config: RunConfig, fast: FastPath) -> RunPlan:
    """The plan with the quick ways that the model takes. Rows that have to be padded are grouped by length, unless the
    config says how rows are drawn."""
    falls_back = not fast.flat and not plan.packing and config.model.fast_path != "off"
    return replace(
        plan,
        attention=fast.attention,
        batches="flat" if fast.flat else "padded",
        loss=fast.loss,
        shares=fast.shares,
        order=_order(config, "group_by_length" if falls_back else "random"),
    )


def _order(config: RunConfig, default: str) -> str:
    if config.train.disable_shuffling:
        return "sequential"
    return str(config.train.hf.get("train_sampling_strategy", default))


def _check_processes(config: RunConfig, world_size: int) -> None:
    if world_size > 1 and (key := steps_in_backward(config)):
        what = "the optimizer would step in the backward pass before the processes have added up their gradients"
        fix = f"train in one process, or no {key}"
        raise UsageError(Problem("E-TRAIN-041", what, key, f"{world_size} processes", fix))
    facts = optimizer_of(config)
    if world_size > 1 and not facts.ranks:
        what = f"{facts.name} changes which weights have gradients, which processes agree on beforehand"
        fix = "train in one process, or with another optimizer, like use_galore: true"
        raise UsageError(Problem("E-OPTIM-009", what, facts.asked, f"{world_size} processes", fix))


def _check_package(config: RunConfig, device: str) -> None:
    inside = OPTIMIZERS.get(str(config.train.value("optim")))
    for facts in (optimizer_of(config), inside):
        if facts is not None and facts.package and find_spec(facts.package) is None:
            what, fix = "the optimizer is of a package that is not installed", f"pip install {facts.package}"
            raise MachineError(Problem("E-OPTIM-008", what, facts.asked, facts.package, fix))
        if facts is not None and facts.gpu_only and not device.startswith("cuda"):
            what, fix = "this optimizer needs a CUDA GPU", "optim: ademamix, or ademamix_8bit"
            raise MachineError(Problem("E-OPTIM-014", what, facts.asked, f"device {device}", fix))


def _checkpointing(config: RunConfig, device: str) -> str:
    """`off`, or the `gradient_checkpointing_mode` of the config, or what is left of it on this device."""
    if config.model.disable_gradient_checkpointing:
        return "off"
    tuner = _tuner(config)
    if tuner is not None and not tuner.recomputes:
        get_logger().info("activations are kept: PEFT computes no layer again with %s", config.method.peft_type)
        return "off"
    mode = config.model.gradient_checkpointing_mode
    if mode == "offload" and not device.startswith("cuda"):
        get_logger().warning(
            "gradient_checkpointing_mode: offload is without effect: the device %s has no memory apart", device
        )
        return "full"
    return mode


def _half_precision(config: RunConfig, device: str) -> str | None:
    """`bfloat16`, `float16` or None, as the config says; an error where the device has no such arithmetic."""
    import torch

    hf = config.train.hf
    if hf.get("fp16") and not device.startswith("cuda"):
        raise MachineError(
            Problem(
                "E-TRAIN-004",
                "fp16 training needs a CUDA GPU",
                where="fp16",
                got=f"device {device}",
                fix="write bf16: true, or leave both out for float32",
            )
        )
    wants_bf16 = bool(hf.get("bf16")) or config.method.pure_bf16
    if wants_bf16 and device.startswith("cuda") and not torch.cuda.is_bf16_supported():
        raise MachineError(
            Problem(
                "E-TRAIN-005",
                "this GPU has no bfloat16 arithmetic",
                where="bf16" if hf.get("bf16") else "pure_bf16",
                got=torch.cuda.get_device_name(),
                fix="write fp16: true instead",
            )
        )
    return "bfloat16" if wants_bf16 else "float16" if hf.get("fp16") else None
