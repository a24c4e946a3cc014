"""Older names of training arguments, and what becomes of them."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith.config import load_config
from tunesmith.core.errors import ConfigError


@pytest.mark.parametrize(
    ("older", "today"),
    [
        ({"warmup_ratio": 0.1}, {"warmup_steps": 0.1}),
        ({"warmup_ratio": "1e-1"}, {"warmup_steps": 0.1}),
        ({"warmup_ratio": 0.0}, {}),
        ({"warmup_ratio": 0.1, "warmup_steps": 0}, {"warmup_steps": 0.1}),
        ({"evaluation_strategy": "steps"}, {"eval_strategy": "steps"}),
        ({"evaluation_strategy": "no"}, {"eval_strategy": "no"}),
        ({"group_by_length": True}, {"train_sampling_strategy": "group_by_length"}),
        ({"group_by_length": False}, {}),
        ({"no_cuda": True}, {"use_cpu": True}),
        ({"per_gpu_train_batch_size": 2}, {"per_device_train_batch_size": 2}),
        ({"per_gpu_eval_batch_size": 3}, {"per_device_eval_batch_size": 3}),
        ({"adafactor": True}, {"optim": "adafactor"}),
        ({"logging_dir": "logs", "overwrite_output_dir": True, "save_safetensors": True}, {}),
        ({"half_precision_backend": "auto", "fp16_opt_level": "O1", "use_mps_device": False}, {}),
    ],
)
def test_an_older_name_arrives_under_its_present_one(older: dict[str, Any], today: dict[str, Any]) -> None:
    config = load_config(older, verb="show")
    assert config.train.hf == today
    assert config.to_flat().keys() == older.keys()


def test_older_names_of_uploads() -> None:
    older = {"push_to_hub": True, "push_to_hub_model_id": "us/ours", "push_to_hub_token": "hf_secret"}
    today = {"push_to_hub": True, "hub_model_id": "us/ours", "hub_token": "hf_secret"}
    assert load_config(older, verb="show").train.hf == today
    with pytest.raises(ConfigError, match="say different things") as caught:
        load_config({**older, "hub_token": "hf_other"}, verb="show")
    assert "hf_" not in str(caught.value)


def test_a_ratio_of_one_warms_up_to_the_last_step() -> None:
    ratio = load_config({"warmup_ratio": 1}, verb="show").train.hf["warmup_steps"]
    assert 0.999 < ratio < 1  # 1 itself would mean one step


def test_warmup_steps_win_over_the_ratio_and_the_warning_says_so() -> None:
    config = load_config({"warmup_ratio": 0.1, "warmup_steps": 30}, verb="show")
    assert config.train.hf == {"warmup_steps": 30}
    assert config.warnings == ("keys without effect: warmup_ratio (warmup_steps is given)",)


def test_two_names_that_disagree_are_an_error() -> None:
    with pytest.raises(ConfigError, match="say different things") as caught:
        load_config({"evaluation_strategy": "steps", "eval_strategy": "epoch"}, verb="show")
    assert caught.value.code == "E-CONFIG-021"
    same = load_config({"evaluation_strategy": "steps", "eval_strategy": "steps"}, verb="show")
    assert same.train.hf == {"eval_strategy": "steps"}


@pytest.mark.parametrize("prefix", ["gradient", "activation"])
def test_transformers_names_for_checkpointing_set_ours(prefix: str) -> None:
    on, arguments = f"{prefix}_checkpointing", f"{prefix}_checkpointing_kwargs"
    assert load_config({on: False}, verb="show").model.disable_gradient_checkpointing is True
    assert load_config({on: True}, verb="show").model.disable_gradient_checkpointing is False
    assert load_config({arguments: {"use_reentrant": False}}, verb="show").model.use_reentrant_gc is False
    moved = load_config({arguments: {"offload": True}}, verb="show")
    assert moved.model.gradient_checkpointing_mode == "offload"
    assert load_config({on: False}, verb="show").train.hf == {}


def test_unsloths_name_for_checkpointing_moves_hidden_states() -> None:
    assert load_config({"use_unsloth_gc": True}, verb="show").model.gradient_checkpointing_mode == "offload"
    assert load_config({"use_unsloth_gc": False}, verb="show").model.gradient_checkpointing_mode == "full"


def test_names_for_checkpointing_that_disagree_are_an_error() -> None:
    for keys in (
        {"gradient_checkpointing": True, "disable_gradient_checkpointing": True},
        {"gradient_checkpointing": True, "activation_checkpointing": False},
        {"gradient_checkpointing_kwargs": {"use_reentrant": False}, "use_reentrant_gc": True},
        {"use_unsloth_gc": True, "gradient_checkpointing_mode": "selective"},
    ):
        with pytest.raises(ConfigError, match="contradicts"):
            load_config(keys, verb="show")


def test_other_arguments_of_checkpointing_are_refused() -> None:
    with pytest.raises(ConfigError, match="knows only use_reentrant"):
        load_config({"gradient_checkpointing_kwargs": {"preserve_rng_state": True}}, verb="show")


def test_weights_are_always_safetensors() -> None:
    with pytest.raises(ConfigError, match="safetensors"):
        load_config({"save_safetensors": False}, verb="show")
