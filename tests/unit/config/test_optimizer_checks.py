"""What an optimizer and a schedule go with is told before a run begins; tests walk the whole tables."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from tunesmith.config import hf, load_config
from tunesmith.config.keys import all_keys
from tunesmith.config.optimizer_checks import options_of
from tunesmith.config.optimizer_facts import (
    OPTIMIZERS,
    OUR_OPTIMS,
    REFUSED_OPTIMS,
    SWITCHES,
    optimizer_of,
    steps_in_backward,
)
from tunesmith.config.schedule_facts import SCHEDULES
from tunesmith.core.errors import ConfigError

TRAIN = {"model_name_or_path": "m", "dataset": "d", "output_dir": "o"}
FULL = {**TRAIN, "finetuning_type": "full"}
EVALUATES = {"val_size": 4, "eval_strategy": "steps", "eval_steps": 2}


def codes(keys: dict[str, Any]) -> list[str]:
    try:
        load_config(keys)
    except ConfigError as error:
        return [problem.code if problem.fix else "no fix" for problem in error.problems]
    return []


def asked(name: str) -> dict[str, Any]:
    """The keys that ask for an optimizer."""
    found: dict[str, Any] = {}
    for part in OPTIMIZERS[name].asked.split(", "):
        key, value = part.split(": ")
        found[key] = True if value == "true" else value
    if OPTIMIZERS[name].averages:
        found["lr_scheduler_type"] = "constant"
    return found


@pytest.mark.parametrize("method", ["full", "freeze", "lora"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_pair_of_optimizer_and_method_works_or_says_why(name: str, method: str) -> None:
    facts = OPTIMIZERS[name]
    keys = {**TRAIN, **asked(name), "finetuning_type": method}
    if facts.methods is None or method in facts.methods:
        assert optimizer_of(load_config(keys)) is facts
        return
    with pytest.raises(ConfigError) as caught:
        load_config(keys)
    (problem,) = caught.value.problems
    assert problem.code == "E-OPTIM-003"
    assert facts.why_not in problem.what


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_in_backward_where_they_are_declared(name: str) -> None:
    keys = {**FULL, **asked(name), "optimizer_in_bwd": True, "max_grad_norm": 0}
    assert codes(keys) == ([] if OPTIMIZERS[name].in_backward else ["E-CONFIG-021"])


@pytest.mark.parametrize("one", SWITCHES)
@pytest.mark.parametrize("other", SWITCHES)
def test_two_optimizers_at_once_are_an_error(one: str, other: str) -> None:
    assert codes({**FULL, one: True, other: True}) == ([] if one == other else ["E-CONFIG-021"])


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("optim", sorted(set(OPTIMIZERS) & set(all_keys()["optim"].choices)))
def test_what_runs_inside_is_declared(switch: str, optim: str) -> None:
    keys = {**FULL, switch: True, "optim": optim}
    own = {"use_muon": "muon", "use_adam_mini": "adam_mini"}.get(switch)
    runs = OPTIMIZERS[switch.removeprefix("use_")].runs or ("adamw_torch", "adamw_torch_fused")
    assert codes(keys) == ([] if optim in (*runs, own) else ["E-CONFIG-021"])


def test_every_name_of_transformers_works_or_leads_to_another() -> None:
    names = set(hf.arguments()["optim"].choices)
    assert names - set(OUR_OPTIMS) == {*OPTIMIZERS, *REFUSED_OPTIMS} & names - set(OUR_OPTIMS)
    assert set(OPTIMIZERS) & set(REFUSED_OPTIMS) == set()
    for name, instead in REFUSED_OPTIMS.items():
        with pytest.raises(ConfigError) as caught:
            load_config({**FULL, "optim": name})
        (problem,) = caught.value.problems
        assert (problem.code, problem.fix) == ("E-OPTIM-002", instead)


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({"finetuning_type": "full", "loraplus_lr_ratio": 16.0}, "E-OPTIM-003"),
        ({"optim": "sgd", "optim_args": "momentum=0.9,foo=1"}, "E-OPTIM-004"),
        ({"optim_args": "momentum=0.9"}, "E-OPTIM-004"),
        ({"finetuning_type": "full", "use_galore": True, "optim_args": "rank=4"}, "E-OPTIM-004"),
        ({"optim": "schedule_free_adamw"}, "E-CONFIG-021"),
        ({"finetuning_type": "full", "use_badam": True, "badam_switch_interval": 0}, "E-CONFIG-004"),
        ({"lr_groups": {"[": {"lr": 1e-3}}}, "E-OPTIM-005"),
        ({"lr_groups": {"embed": 1e-3}}, "E-OPTIM-005"),
        ({"lr_groups": {"embed": {}}}, "E-OPTIM-005"),
        ({"lr_groups": {"embed": {"rate": 1}}}, "E-OPTIM-005"),
        ({"lr_groups": {"embed": {"lr": 1, "lr_factor": 2}}}, "E-OPTIM-005"),
        ({"lr_groups": {"embed": {"lr": -1}}}, "E-OPTIM-005"),
        ({"lr_groups": {"embed": {"lr": True}}}, "E-OPTIM-005"),
    ],
)
def test_what_cannot_be_is_one_error(keys: dict[str, Any], code: str) -> None:
    assert codes({**TRAIN, **keys}) == [code]


@pytest.mark.parametrize("layerwise", ["galore", "apollo"])
def test_layerwise_needs_whole_gradients_and_does_not_clip(layerwise: str) -> None:
    keys = {**FULL, f"use_{layerwise}": True, f"{layerwise}_layerwise": True}
    config = load_config(keys)
    assert steps_in_backward(config) == f"{layerwise}_layerwise"
    for wrong in ({"gradient_accumulation_steps": 2}, {"max_grad_norm": 1.0}, {"fp16": True}):
        assert codes({**keys, **wrong}) == ["E-CONFIG-021"]
    assert codes({**keys, "on_nonfinite": "skip"}) == ["E-CONFIG-021"]


def test_keys_of_an_optimizer_that_is_not_asked_for_are_named() -> None:
    config = load_config({**FULL, "galore_rank": 4, "badam_update_ratio": 0.1, "apollo_scale": 2.0})
    assert len(config.warnings) == 1
    assert all(key in config.warnings[0] for key in ("galore_rank", "badam_update_ratio", "apollo_scale"))
    config = load_config({**FULL, "use_badam": True, "badam_update_ratio": 0.1})
    assert "only with badam_mode: ratio" in config.warnings[0]


def test_options_are_numbers_and_truths() -> None:
    config = load_config({**FULL, "optim": "muon", "optim_args": "momentum=0.9, nesterov=false, ns_steps=3"})
    assert options_of(config) == {"momentum": 0.9, "nesterov": False, "ns_steps": 3}


# ---- schedules ----


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_says_what_it_needs_and_takes(name: str) -> None:
    facts = SCHEDULES[name]
    keys = {**TRAIN, **EVALUATES, "lr_scheduler_type": name}
    assert codes(keys) == (["E-OPTIM-007"] if facts.one_of else [])
    if facts.one_of:
        with pytest.raises(ConfigError, match=r"lr_scheduler_kwargs: \{min_lr_rate: 0\.1\}"):
            load_config(keys)
        assert codes({**keys, "lr_scheduler_kwargs": dict.fromkeys(facts.one_of, 0.1)}) == ["E-OPTIM-007"]
    one = {facts.one_of[0]: 1e-5} if facts.one_of else {}
    assert codes({**keys, "lr_scheduler_kwargs": {**one, "nonsense": 1}}) == ["E-OPTIM-006"]
    for key in facts.takes:
        if key not in facts.one_of:
            assert codes({**keys, "lr_scheduler_kwargs": {**one, key: 1}}) == []


def test_the_schedules_are_those_of_transformers() -> None:
    from torch.optim.lr_scheduler import ReduceLROnPlateau
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, GreedyLR

    given = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch", "kwargs"}
    assert {name.value for name in TYPE_TO_SCHEDULER_FUNCTION} == set(SCHEDULES)
    makers = {name.value: make for name, make in TYPE_TO_SCHEDULER_FUNCTION.items()}
    makers |= {"reduce_lr_on_plateau": ReduceLROnPlateau, "greedy": GreedyLR}
    for name, facts in SCHEDULES.items():
        assert set(inspect.signature(makers[name]).parameters) - given == set(facts.takes), name
