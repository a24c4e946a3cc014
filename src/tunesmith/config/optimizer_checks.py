"""Rules about the optimizer and the schedule of its learning rate: what goes with what (optimizer_facts.py)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tunesmith.config.check_table import Check, contradiction, rules_into
from tunesmith.config.optimizer_facts import (
    DEFAULT_OPTIM,
    REFUSED_OPTIMS,
    asked_switches,
    optimizer_of,
    steps_in_backward,
)
from tunesmith.config.run_config import RunConfig
from tunesmith.config.schedule_facts import SCHEDULES
from tunesmith.core.errors import Problem
from tunesmith.core.suggest import did_you_mean

__all__ = ["OPTIMIZER_CHECKS", "options_of"]

OPTIMIZER_CHECKS: list[Check] = []
_rule = rules_into(OPTIMIZER_CHECKS)
_TRAIN = ("train",)
_ASKED = ("optim", "adafactor", "use_galore", "use_apollo", "use_badam", "use_adam_mini", "use_muon")
_CONSTANT = ("constant", "constant_with_warmup")


def options_of(config: RunConfig) -> dict[str, Any]:
    """`optim_args` as a mapping: numbers, true and false where they look so."""
    found: dict[str, Any] = {}
    for part in str(config.train.value("optim_args") or "").replace(" ", "").split(","):
        name, _, text = part.partition("=")
        if name:
            found[name] = _value(text)
    return found


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


@_rule(_TRAIN, "optim")
def _the_optimizer_is_alive(config: RunConfig) -> Iterator[Problem]:
    optim = str(config.train.value("optim"))
    if optim in REFUSED_OPTIMS:
        what = f'"optim: {optim}" is not among the optimizers'
        yield Problem("E-OPTIM-002", what, config.place("optim"), optim, REFUSED_OPTIMS[optim])


@_rule(_TRAIN, *_ASKED, "loraplus_lr_ratio", "finetuning_type")
def _one_optimizer(config: RunConfig) -> Iterator[Problem]:
    asked = asked_switches(config)
    for key in asked[1:]:
        what = f'"{key}" and "{asked[0]}" both say what the optimizer is'
        yield contradiction(config, key, what, "keep one of them")
    if len(asked) == 1:
        yield from _runs_inside(config, asked[0])
    facts, method = optimizer_of(config), config.method.finetuning_type
    if len(asked) < 2 and facts.methods is not None and method not in facts.methods:
        what = f'"{asked[0] if asked else "optim"}" does not go with finetuning_type: {method}: {facts.why_not}'
        fix = f"finetuning_type: {' or '.join(facts.methods)}, or leave {asked[0] if asked else 'optim'} out"
        yield Problem("E-OPTIM-003", what, config.place("finetuning_type"), method, fix)
    if config.optimizer.loraplus_lr_ratio is not None and method != "lora":
        what = f'"loraplus_lr_ratio" is of the matrices of LoRA, and finetuning_type: {method} has none'
        fix = "finetuning_type: lora, or lr_groups for other weights"
        yield Problem("E-OPTIM-003", what, config.place("loraplus_lr_ratio"), method, fix)


def _runs_inside(config: RunConfig, key: str) -> Iterator[Problem]:
    """`optim` beside a switch is the optimizer that runs inside."""
    facts, optim = optimizer_of(config), str(config.train.value("optim"))
    runs = facts.runs or (DEFAULT_OPTIM, "adamw_torch", facts.name)
    if optim not in runs and optim not in REFUSED_OPTIMS:
        what = f'"{key}" does not run {optim} inside'
        yield contradiction(config, "optim", what, f"optim: {' or '.join(runs)}, or leave it out")


@_rule(_TRAIN, *_ASKED, "optim_args")
def _the_optimizer_knows_its_settings(config: RunConfig) -> Iterator[Problem]:
    facts = optimizer_of(config)
    known = facts.options
    for name in options_of(config):
        if name not in known:
            what = f'"optim_args" names what {facts.name} does not have'
            fix = did_you_mean(name, known) or (f"one of {', '.join(known)}" if known else "leave optim_args out")
            yield Problem("E-OPTIM-004", what, config.place("optim_args"), name, fix)


@_rule(_TRAIN, *_ASKED, "deepspeed")
def _deepspeed_can_hold_it(config: RunConfig) -> Iterator[Problem]:
    facts = optimizer_of(config)
    if config.train.value("deepspeed") and not facts.deepspeed:
        what = f'"deepspeed" shards weights and states, and {facts.name} needs them whole'
        yield contradiction(config, "deepspeed", what, f"another optimizer than {facts.asked}, or no deepspeed")


@_rule(_TRAIN, *_ASKED, "lr_scheduler_type")
def _averaging_is_the_schedule(config: RunConfig) -> Iterator[Problem]:
    facts, schedule = optimizer_of(config), str(config.train.value("lr_scheduler_type"))
    if facts.averages and schedule not in _CONSTANT:
        what = f'"{facts.asked}" averages in place of a schedule, and "lr_scheduler_type: {schedule}" is one'
        yield contradiction(config, "lr_scheduler_type", what, f"lr_scheduler_type: {' or '.join(_CONSTANT)}")


@_rule(_TRAIN, *_ASKED, "optimizer_in_bwd", "galore_layerwise", "apollo_layerwise", "gradient_accumulation_steps")
def _layerwise_sees_one_gradient(config: RunConfig) -> Iterator[Problem]:
    key = steps_in_backward(config)
    if key is None or key == "optimizer_in_bwd":  # memory_checks.py
        return
    value = config.train.value
    broken = {
        "gradient_accumulation_steps": ("adds no gradients up", value("gradient_accumulation_steps") != 1, "1"),
        "max_grad_norm": ("cannot clip by the norm of all gradients", bool(config.values.get("max_grad_norm")), "0"),
        "fp16": ("knows no factor of the loss", bool(value("fp16")), "false, and bf16: true"),
    }
    for name, (reason, is_broken, fix) in broken.items():
        if is_broken:
            yield contradiction(config, name, f'"{key}" {reason}', f"{name}: {fix}")


@_rule(_TRAIN, *_ASKED, "badam_mode", "badam_switch_interval")
def _blocks_last_some_steps(config: RunConfig) -> Iterator[Problem]:
    ours = config.optimizer
    interval = ours.badam_switch_interval
    if ours.use_badam and interval is not None and (interval == 0 or interval < -1):
        what = '"badam_switch_interval" is a number of steps, or -1 to never switch'
        place = config.place("badam_switch_interval")
        yield Problem("E-CONFIG-004", what, place, str(interval), "badam_switch_interval: 50")


# ---- groups of weights ----

_SETTINGS = ("lr", "lr_factor", "weight_decay")


@_rule(_TRAIN, "lr_groups")
def _groups_say_what_is_different(config: RunConfig) -> Iterator[Problem]:
    place = config.place("lr_groups")
    for pattern, wanted in (config.optimizer.lr_groups or {}).items():
        try:
            re.compile(pattern)
        except re.error as error:
            what = f'"lr_groups" has a pattern that is no regular expression: {error}'
            yield Problem("E-OPTIM-005", what, place, pattern, r"for example: \.layers\.(0|1)\.")
        if fault := _fault(wanted):
            fix = f"{pattern!r}: {{lr: 1e-5}}, or lr_factor, and weight_decay"
            yield Problem("E-OPTIM-005", f'"lr_groups": {fault}', place, f"{pattern}: {wanted}", fix)


def _fault(wanted: Any) -> str | None:
    if not isinstance(wanted, Mapping) or not wanted:
        return "a pattern leads to a mapping"
    if unknown := [str(name) for name in wanted if name not in _SETTINGS]:
        return f"{', '.join(unknown)} is none of {', '.join(_SETTINGS)}"
    if "lr" in wanted and "lr_factor" in wanted:
        return "lr and lr_factor both say the learning rate"
    numbers = wanted.values()
    if not all(isinstance(one, (int, float)) and not isinstance(one, bool) and one >= 0 for one in numbers):
        return "the settings are numbers of at least 0"
    return None


# ---- the schedule ----


@_rule(_TRAIN, "lr_scheduler_type", "lr_scheduler_kwargs")
def _the_schedule_has_what_it_needs(config: RunConfig) -> Iterator[Problem]:
    name, given = str(config.train.value("lr_scheduler_type")), config.train.value("lr_scheduler_kwargs") or {}
    if isinstance(given, str):
        return
    facts, place = SCHEDULES[name], config.place("lr_scheduler_kwargs")
    for key in given:
        if key not in facts.takes:
            what = f'"lr_scheduler_kwargs" names what lr_scheduler_type: {name} does not have'
            known = f"one of {', '.join(facts.takes)}" if facts.takes else "leave lr_scheduler_kwargs out"
            yield Problem("E-OPTIM-006", what, place, str(key), did_you_mean(str(key), facts.takes) or known)
    chosen = [key for key in facts.one_of if given.get(key) is not None]
    if facts.one_of and len(chosen) != 1:
        what = f'"lr_scheduler_type: {name}" needs one of {" and ".join(facts.one_of)}'
        where = place if chosen else config.place("lr_scheduler_type")
        yield Problem("E-OPTIM-007", what, where, " and ".join(chosen) or "none of them", facts.example)
