"""Names that newer transformers dropped, mapped to what does the same today."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tunesmith.core.errors import Problem

__all__ = ["modernise"]

# Older name: what it becomes, as (present name, present value), or None where the old value asks for nothing.
_TODAY: dict[str, Callable[[Any], tuple[str, Any] | None]] = {
    "warmup_ratio": lambda ratio: ("warmup_steps", ratio) if ratio else None,
    "evaluation_strategy": lambda value: ("eval_strategy", value),
    "group_by_length": lambda on: ("train_sampling_strategy", "group_by_length") if on else None,
    "no_cuda": lambda on: ("use_cpu", on),
    "per_gpu_train_batch_size": lambda rows: ("per_device_train_batch_size", rows),
    "per_gpu_eval_batch_size": lambda rows: ("per_device_eval_batch_size", rows),
    "adafactor": lambda on: ("optim", "adafactor") if on else None,
    "gradient_checkpointing": lambda on: ("activation_checkpointing", on),
    "gradient_checkpointing_kwargs": lambda kwargs: ("activation_checkpointing_kwargs", kwargs),
}


def modernise(
    values: Mapping[str, Any], passed_on: Mapping[str, Any], place: Callable[[str], str]
) -> tuple[dict[str, Any], list[Problem], list[str]]:
    """Training arguments under today's names, contradictions between two names, and older keys that lost.

    `values`: everything the user set; `passed_on`: the part that transformers knows.
    """
    arguments = dict(passed_on)
    problems: list[Problem] = []
    lost: list[str] = []
    for old, today in _TODAY.items():
        if values.get(old) is None or (mapped := today(values[old])) is None:
            continue
        new, value = mapped
        if new not in arguments:
            arguments[new] = value
        elif old == "warmup_ratio":
            if arguments[new]:
                lost.append(f"{old} ({new} is given)")
            else:
                arguments[new] = value
        elif arguments[new] != value:
            what = f'"{old}" and "{new}" say different things'
            fix = f'keep "{new}"; "{old}" is its older name'
            problems.append(Problem("E-CONFIG-021", what, place(old), f"{values[old]} and {passed_on.get(new)}", fix))
    if arguments.get("warmup_steps") == 1 and values.get("warmup_ratio") == 1:
        # 1 would be one step; a ratio of 1 means all of them.
        arguments["warmup_steps"] = 1 - 1e-9
    return arguments, problems, lost
