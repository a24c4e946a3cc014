"""Names that newer transformers dropped, and its names for checkpointing, mapped to what does the same here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tunesmith.core.errors import Problem

__all__ = ["checkpointing", "modernise"]

# Older name: what it becomes, as (present name, present value), or None where the old value asks for nothing.
_TODAY: dict[str, Callable[[Any], tuple[str, Any] | None]] = {
    "warmup_ratio": lambda ratio: ("warmup_steps", ratio) if ratio else None,
    "evaluation_strategy": lambda value: ("eval_strategy", value),
    "group_by_length": lambda on: ("train_sampling_strategy", "group_by_length") if on else None,
    "no_cuda": lambda on: ("use_cpu", on),
    "per_gpu_train_batch_size": lambda rows: ("per_device_train_batch_size", rows),
    "per_gpu_eval_batch_size": lambda rows: ("per_device_eval_batch_size", rows),
    "adafactor": lambda on: ("optim", "adafactor") if on else None,
}


def modernise(
    values: Mapping[str, Any], passed_on: Mapping[str, Any], place: Callable[[str], str]
) -> tuple[dict[str, Any], list[Problem], dict[str, str]]:
    """Training arguments under today's names, contradictions between two names, and why older keys lost.

    `values`: everything the user set; `passed_on`: the part that transformers knows.
    """
    arguments = dict(passed_on)
    problems: list[Problem] = []
    lost: dict[str, str] = {}
    for old, today in _TODAY.items():
        if values.get(old) is None or (mapped := today(values[old])) is None:
            continue
        new, value = mapped
        if new not in arguments:
            arguments[new] = value
        elif old == "warmup_ratio":
            if arguments[new]:
                lost[old] = f"{new} is given"
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


def checkpointing(values: Mapping[str, Any], place: Callable[[str], str]) -> tuple[dict[str, Any], list[Problem]]:
    """What transformers' names for checkpointing mean for `disable_gradient_checkpointing` and `use_reentrant_gc`."""
    wanted: dict[str, Any] = {}
    problems: list[Problem] = []

    def want(name: str, value: Any, said_by: str) -> None:
        said = wanted.get(name, values.get(name, value))
        if said != value:
            what = f'"{said_by}" contradicts "{name}"'
            problems.append(Problem("E-CONFIG-021", what, place(said_by), f"{values[said_by]}", f'keep "{name}"'))
        wanted[name] = said

    for prefix in ("gradient", "activation"):
        if (on := values.get(f"{prefix}_checkpointing")) is not None:
            want("disable_gradient_checkpointing", not on, f"{prefix}_checkpointing")
        name = f"{prefix}_checkpointing_kwargs"
        for key, value in (values.get(name) or {}).items():
            if key == "use_reentrant" and isinstance(value, bool):
                want("use_reentrant_gc", value, name)
            else:
                got = f"{key}: {value}"
                problems.append(Problem("E-CONFIG-002", f'"{name}" knows only use_reentrant', place(name), got))
    return wanted, problems
