"""Whole runs on answers that were liked or not: what they learn, and what does not change it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.pairs import steps_of, write_feedback
from tests.pairs import stories as story_pairs
from tunesmith.core.errors import TunesmithError

Run = Callable[..., Any]


@pytest.fixture
def feedback(story_run: Run, tmp_path: Path) -> Run:
    """`feedback(key=value, ...)`: a short KTO run of stories260K, LoRA, stories that are liked or not -> Result."""
    keys = {
        "stage": "kto",
        "dataset": str(write_feedback(tmp_path)),
        "per_device_train_batch_size": 4,
        "max_steps": 3,
        "learning_rate": 5e-3,
    }
    return lambda **changes: story_run(**{**keys, **changes})


def close(one: Any, two: Any) -> None:
    for first, second in zip(steps_of(one), steps_of(two), strict=True):
        names = {name for name in first if name in ("loss", "kl") or name.startswith(("rewards/", "logps/"))}
        assert {"loss", "kl", "rewards/accuracies"} < names <= second.keys(), "a step may have answers of one side"
        for name in names:
            assert first[name] == pytest.approx(second[name], rel=1e-5, abs=1e-5), name
        assert first["grad_norm"] == pytest.approx(second["grad_norm"], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys",
    [{}, {"finetuning_type": "full", "learning_rate": 1e-3}, {"kto_loss": "bco"}, {"kto_loss": "apo_zero_unpaired"}],
    ids=["lora", "full", "bco", "apo"],
)
def test_a_run_learns_what_is_liked(feedback: Run, keys: dict[str, Any]) -> None:
    how = {
        "val_size": 12,
        "eval_strategy": "steps",
        "eval_steps": 12,
        "max_steps": 12,
        "per_device_train_batch_size": 8,
    }
    result = feedback(**{**how, **keys})
    first = steps_of(result)[0]
    start = {"bco": 0.693147}.get(keys.get("kto_loss", "kto"), 0.5)
    assert first["loss"] == pytest.approx(start, abs=1e-5), "the policy is its own reference"
    assert first["rewards/chosen"] == pytest.approx(0, abs=1e-5)
    metrics = result.metrics
    assert metrics["eval_rewards/accuracies"] >= 0.95
    assert metrics["eval_rewards/chosen"] > metrics["eval_rewards/rejected"] + 0.5
    assert metrics["eval_rewards/margins"] == metrics["eval_rewards/chosen"] - metrics["eval_rewards/rejected"]
    assert metrics["eval_answers"] == 12
    assert "kl" not in first or first["kl"] == 0


def test_the_quick_ways_are_transformers_own(feedback: Run) -> None:
    quick, plain = feedback(), feedback(fast_path="off", overwrite_output_dir=True)
    assert (quick.plan.batches, plain.plan.batches) == ("flat", "padded")
    close(quick, plain)


@pytest.mark.slow
def test_a_step_does_not_depend_on_its_split(feedback: Run, tmp_path: Path) -> None:
    how = {"max_steps": 4, "val_size": 8, "eval_strategy": "steps", "eval_steps": 4, "learning_rate": 0.02}
    whole = feedback(per_device_train_batch_size=8, **how)
    parts = feedback(
        gradient_accumulation_steps=4, per_device_train_batch_size=2, output_dir=str(tmp_path / "b"), **how
    )
    close(whole, parts)
    assert any(one["kl"] > 0 for one in steps_of(whole))
    small = feedback(per_device_eval_batch_size=3, output_dir=str(tmp_path / "c"), per_device_train_batch_size=8, **how)
    for name in ("loss", "kl", "rewards/chosen", "rewards/margins", "rewards/accuracies"):
        assert small.metrics[f"eval_{name}"] == pytest.approx(whole.metrics[f"eval_{name}"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("keys", [{"packing": True}, {"packing": True, "fast_path": "off"}], ids=["flat", "padded"])
def test_packs_of_answers_train(feedback: Run, keys: dict[str, Any]) -> None:
    result = feedback(cutoff_len=160, per_device_train_batch_size=2, max_steps=3, **keys)
    assert steps_of(result)[0]["loss"] == pytest.approx(0.5, abs=1e-5)
    assert steps_of(result)[-1]["loss"] < 0.5


@pytest.mark.slow
def test_a_stream_of_answers_trains(feedback: Run) -> None:
    result = feedback(streaming=True, buffer_size=16, max_steps=4)
    assert steps_of(result)[0]["loss"] == pytest.approx(0.5, abs=1e-5)
    assert steps_of(result)[-1]["loss"] < 0.5


@pytest.mark.slow
def test_a_resumed_run_gives_the_same_bits(feedback: Run, tmp_path: Path) -> None:
    keys = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "lora_dropout": 0.1}
    whole = feedback(output_dir=str(tmp_path / "whole"), **keys)
    feedback(output_dir=str(tmp_path / "parts"), **keys)
    for name in ("adapter_model.safetensors", "checkpoint-6"):
        path = tmp_path / "parts" / name
        path.unlink() if path.is_file() else shutil.rmtree(path)
    parts = feedback(output_dir=str(tmp_path / "parts"), resume_from_checkpoint=True, **keys)
    from safetensors.torch import load_file

    one, two = (load_file(result.output_dir / "adapter_model.safetensors") for result in (whole, parts))
    assert all(torch.equal(one[name], two[name]) for name in one)


def _rows(labels: list[Any]) -> list[dict[str, Any]]:
    return [
        {"conversations": [*row["conversations"], row["chosen"]], "kto_tag": label}
        for row, label in zip(story_pairs(len(labels)), labels, strict=True)
    ]


@pytest.mark.parametrize(
    ("labels", "codes"),
    [([True] * 6, {"E-DATA-061"}), ([True, "maybe", False, 7, None, False], {"E-DATA-013", "E-DATA-061"})],
    ids=["liked only", "no label"],
)
def test_feedback_that_teaches_nothing_is_refused(
    feedback: Run, tmp_path: Path, labels: list[Any], codes: set[str]
) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in _rows(labels)), encoding="utf-8")
    with pytest.raises(TunesmithError) as caught:
        feedback(dataset=str(file))
    assert {problem.code for problem in caught.value.problems} == codes
