"""Names that newer transformers dropped, and other names for checkpointing and kernels, mapped to ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tunesmith.core.errors import Problem
from tunesmith.core.secrets import HIDDEN, is_secret

__all__ = ["OLDER_NAMES", "modernise", "other_names"]

OLDER_NAMES: dict[str, str] = {
    "warmup_ratio": "warmup_steps",
    "evaluation_strategy": "eval_strategy",
    "group_by_length": "train_sampling_strategy",
    "no_cuda": "use_cpu",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "adafactor": "optim",
    "push_to_hub_model_id": "hub_model_id",
    "push_to_hub_token": "hub_token",
}
# Switches that became a value of another key.
_CHOSEN = {"group_by_length": "group_by_length", "adafactor": "adafactor"}
_ALL_STEPS = 1 - 1e-9  # 1 would be one step


def modernise(
    values: Mapping[str, Any], passed_on: Mapping[str, Any], place: Callable[[str], str]
) -> tuple[dict[str, Any], list[Problem], dict[str, str]]:
    """Training arguments under today's names, contradictions between two names, and why older keys lost.

    `values`: everything the user set; `passed_on`: the part that transformers knows.
    """
    arguments = dict(passed_on)
    problems: list[Problem] = []
    lost: dict[str, str] = {}
    for old, new in OLDER_NAMES.items():
        if (value := _today(old, values.get(old))) is None:
            continue
        if new not in passed_on or passed_on[new] == value or (old == "warmup_ratio" and not passed_on[new]):
            arguments[new] = value
        elif old == "warmup_ratio":
            lost[old] = f"{new} is given"
        else:
            what = f'"{old}" and "{new}" say different things'
            fix = f'keep "{new}"; "{old}" is its older name'
            got = HIDDEN if is_secret(old) else f"{values[old]} and {passed_on[new]}"
            problems.append(Problem("E-CONFIG-021", what, place(old), got, fix))
    return arguments, problems, lost


def _today(old: str, value: Any) -> Any:
    """The value under today's name, or None where the old one asks for nothing."""
    if old in _CHOSEN:
        return _CHOSEN[old] if value else None
    if old == "warmup_ratio":
        return min(value, _ALL_STEPS) if value else None
    return value


def other_names(values: Mapping[str, Any], place: Callable[[str], str]) -> tuple[dict[str, Any], list[Problem]]:
    """What other names for checkpointing and kernels mean for our keys of the model."""
    wanted: dict[str, Any] = {}
    problems: list[Problem] = []

    def want(name: str, value: Any, said_by: str) -> None:
        said = wanted.get(name, values.get(name, value))
        if said != value:
            what = f'"{said_by}" contradicts "{name}"'
            problems.append(Problem("E-CONFIG-021", what, place(said_by), f"{values[said_by]}", f'keep "{name}"'))
        wanted[name] = said

    if values.get("use_liger_kernel"):
        want("enable_liger_kernel", True, "use_liger_kernel")
    if values.get("use_unsloth_gc"):
        want("gradient_checkpointing_mode", "offload", "use_unsloth_gc")
    for prefix in ("gradient", "activation"):
        if (on := values.get(f"{prefix}_checkpointing")) is not None:
            want("disable_gradient_checkpointing", not on, f"{prefix}_checkpointing")
        name = f"{prefix}_checkpointing_kwargs"
        for key, value in (values.get(name) or {}).items():
            if key == "use_reentrant" and isinstance(value, bool):
                want("use_reentrant_gc", value, name)
            elif key == "offload" and isinstance(value, bool):
                if value:
                    want("gradient_checkpointing_mode", "offload", name)
            else:
                what, got = f'"{name}" knows only use_reentrant and offload', f"{key}: {value}"
                problems.append(Problem("E-CONFIG-002", what, place(name), got))
    return wanted, problems
