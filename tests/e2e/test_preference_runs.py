"""Whole runs on pairs of answers: what they learn, what they are compared with, how they go on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.pairs import steps_of, write_stories
from tunesmith.core.errors import TunesmithError

Run = Callable[..., Any]


@pytest.fixture
def prefer(story_run: Run, tmp_path: Path) -> Run:
    """`prefer(key=value, ...)`: a short DPO run of stories260K, LoRA, pairs of stories -> Result."""
    keys = {
        "stage": "dpo",
        "dataset": str(write_stories(tmp_path)),
        "per_device_train_batch_size": 2,
        "max_steps": 4,
        "learning_rate": 1e-3,
    }
    return lambda **changes: story_run(**{**keys, **changes})


@pytest.mark.slow
def test_a_run_learns_what_is_preferred(prefer: Run) -> None:
    result = prefer(val_size=8, eval_strategy="steps", eval_steps=12, max_steps=12, per_device_train_batch_size=4)
    first, last = steps_of(result)[0], steps_of(result)[-1]
    assert first["loss"] == pytest.approx(0.693147, abs=1e-5), "the policy is its own reference"
    assert result.metrics["eval_rewards/accuracies"] >= 0.95
    assert last["rewards/margins"] > first["rewards/margins"] + 0.5
    assert result.metrics["eval_pairs"] == 8


def test_a_prompt_is_computed_once_unless_it_is_not_to_be(prefer: Run) -> None:
    shared, apart = prefer(), prefer(prefix_sharing="off", overwrite_output_dir=True)
    plain = prefer(fast_path="off", overwrite_output_dir=True)
    for other in (apart, plain):
        for one, two in zip(steps_of(shared), steps_of(other), strict=True):
            assert one["loss"] == pytest.approx(two["loss"], abs=1e-5)
            assert one["logps/chosen"] == pytest.approx(two["logps/chosen"], abs=1e-4)
    assert shared.metrics["train_tokens"] < 0.8 * apart.metrics["train_tokens"] == 0.8 * plain.metrics["train_tokens"]


@pytest.mark.parametrize("method", ["full", "lora", "oft"])
def test_the_reference_is_the_model_before_training(prefer: Run, method: str) -> None:
    """At first nothing is to be told apart, and the reference stays where it was."""
    more = {"oft_block_size": 8, "learning_rate": 5e-3} if method == "oft" else {}
    result = prefer(finetuning_type=method, **more)
    assert steps_of(result)[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert steps_of(result)[-1]["loss"] < 0.69


def test_a_beginning_that_changes_the_base_has_a_copy_as_reference(prefer: Run) -> None:
    result = prefer(pissa_init=True)
    assert steps_of(result)[0]["loss"] == pytest.approx(0.693147, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("begins", ["lora_ga", "eva"])
def test_a_beginning_that_looks_at_rows_looks_at_answers(prefer: Run, begins: str) -> None:
    result = prefer(init_lora_weights=begins)
    assert steps_of(result)[0]["loss"] == pytest.approx(0.693147, abs=1e-4)
    assert steps_of(result)[-1]["loss"] < 0.69


def test_another_model_may_be_the_reference(prefer: Run, stories: Path, tiny_model: Path) -> None:
    """The same weights in four bits are nearly the same reference."""
    result = prefer(ref_model=str(stories), ref_model_quantization_bit=4)
    first = steps_of(result)[0]
    assert first["loss"] != pytest.approx(0.693147, abs=1e-6)
    assert first["loss"] == pytest.approx(0.693147, abs=0.15)
    with pytest.raises(TunesmithError) as caught:
        prefer(ref_model=str(tiny_model), overwrite_output_dir=True)
    assert caught.value.problems[0].code == "E-TRAIN-069"


@pytest.mark.slow
def test_adapters_of_the_reference_are_merged_into_it(prefer: Run, stories: Path, tmp_path: Path) -> None:
    trained = prefer(output_dir=str(tmp_path / "before"), max_steps=6, learning_rate=5e-3)
    keys = {"ref_model": str(stories), "ref_model_adapters": str(trained.output_dir)}
    result = prefer(adapter_name_or_path=str(trained.output_dir), create_new_adapter=True, **keys)
    assert steps_of(result)[0]["loss"] == pytest.approx(0.693147, abs=1e-4), "both are the merged model"
    apart = prefer(adapter_name_or_path=str(trained.output_dir), ref_model=str(stories), overwrite_output_dir=True)
    assert abs(steps_of(apart)[0]["loss"] - 0.693147) > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["aot", "kto_pair"])
def test_a_loss_of_the_whole_step_does_not_depend_on_its_split(prefer: Run, loss: str, tmp_path: Path) -> None:
    how = {"pref_loss": loss, "max_steps": 3, "val_size": 8, "eval_strategy": "steps", "eval_steps": 3}
    whole = prefer(per_device_train_batch_size=8, **how)
    parts = prefer(per_device_train_batch_size=2, gradient_accumulation_steps=4, output_dir=str(tmp_path / "b"), **how)
    for one, two in zip(steps_of(whole), steps_of(parts), strict=True):
        assert one["loss"] == pytest.approx(two["loss"], abs=1e-5)
        assert one["grad_norm"] == pytest.approx(two["grad_norm"], rel=1e-3)
    small = prefer(per_device_eval_batch_size=3, output_dir=str(tmp_path / "c"), per_device_train_batch_size=8, **how)
    assert small.metrics["eval_loss"] == pytest.approx(whole.metrics["eval_loss"], abs=1e-6)


@pytest.mark.slow
def test_a_resumed_run_gives_the_same_bits(prefer: Run, tmp_path: Path) -> None:
    keys = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "lora_dropout": 0.1}
    whole = prefer(output_dir=str(tmp_path / "whole"), **keys)
    prefer(output_dir=str(tmp_path / "parts"), **keys)
    for name in ("adapter_model.safetensors", "checkpoint-6"):
        path = tmp_path / "parts" / name
        path.unlink() if path.is_file() else shutil.rmtree(path)
    parts = prefer(output_dir=str(tmp_path / "parts"), resume_from_checkpoint=True, **keys)
    from safetensors.torch import load_file

    one, two = (load_file(result.output_dir / "adapter_model.safetensors") for result in (whole, parts))
    assert all(torch.equal(one[name], two[name]) for name in one)
