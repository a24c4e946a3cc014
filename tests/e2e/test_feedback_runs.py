"""Whole runs on answers that were liked or not: what they learn, and what does not change it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.pairs import stories as story_pairs
from tests.pairs import write_feedback
from tunesmith.core.errors import TunesmithError

Run = Callable[..., Any]


@pytest.fixture
def feedback(stories: Path, tmp_path: Path, torch_one_thread: None) -> Run:
    """`feedback(key=value, ...)`: a short KTO run of stories260K, LoRA, stories that are liked or not -> Result."""
    import tunesmith

    keys = {
        "model_name_or_path": str(stories),
        "stage": "kto",
        "finetuning_type": "lora",
        "lora_rank": 4,
        "dataset": str(write_feedback(tmp_path)),
        "template": "default",
        "output_dir": str(tmp_path / "out"),
        "per_device_train_batch_size": 4,
        "max_steps": 3,
        "learning_rate": 5e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
    }
    return lambda **changes: tunesmith.train({**keys, **changes})


def log(result: Any) -> list[dict[str, Any]]:
    lines = (result.output_dir / "trainer_log.jsonl").read_text().splitlines()
    return [one for one in map(json.loads, lines) if "loss" in one]


def close(one: Any, two: Any) -> None:
    for first, second in zip(log(one), log(two), strict=True):
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
    first = log(result)[0]
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
    assert any(one["kl"] > 0 for one in log(whole))
    small = feedback(per_device_eval_batch_size=3, output_dir=str(tmp_path / "c"), per_device_train_batch_size=8, **how)
    for name in ("loss", "kl", "rewards/chosen", "rewards/margins", "rewards/accuracies"):
        assert small.metrics[f"eval_{name}"] == pytest.approx(whole.metrics[f"eval_{name}"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("keys", [{"packing": True}, {"packing": True, "fast_path": "off"}], ids=["flat", "padded"])
def test_packs_of_answers_train(feedback: Run, keys: dict[str, Any]) -> None:
    result = feedback(cutoff_len=160, per_device_train_batch_size=2, max_steps=3, **keys)
    assert log(result)[0]["loss"] == pytest.approx(0.5, abs=1e-5)
    assert log(result)[-1]["loss"] < 0.5


@pytest.mark.slow
def test_a_stream_of_answers_trains(feedback: Run) -> None:
    result = feedback(streaming=True, buffer_size=16, max_steps=4)
    assert log(result)[0]["loss"] == pytest.approx(0.5, abs=1e-5)
    assert log(result)[-1]["loss"] < 0.5


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
