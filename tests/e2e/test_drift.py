"""A resumed run is compared with its checkpoint: what may not change is an error, what may holds from there on."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_exactness import assert_bit_identical, log
from tunesmith.config.keys import all_keys
from tunesmith.config.resume import policy_of
from tunesmith.core.errors import UsageError


@pytest.fixture
def stopped(run, tmp_path) -> Any:
    """`stopped(**changes)`: goes on from step 4 of 8 with other keys."""
    run(num_train_epochs=2, save_strategy="steps", save_steps=4, lora_dropout=0.1)
    checkpoint = str(tmp_path / "out" / "checkpoint-4")
    return lambda **changes: run(
        **{"num_train_epochs": 2, "lora_dropout": 0.1, "resume_from_checkpoint": checkpoint, **changes}
    )


def test_every_key_with_an_effect_has_a_policy() -> None:
    working = {name for name, key in all_keys().items() if key.mark.state == "works"}
    assert {name for name in working if policy_of(name) is None} == set()


FROZEN = {
    "lora_rank": 4,
    "lora_alpha": 3,
    "lora_target": "q_proj",
    "lora_dropout": 0.2,
    "seed": 8,
    "cutoff_len": 20,
    "optim": "adafactor",
    "max_samples": 12,
    "train_on_prompt": True,
    "use_dft_loss": True,
    "per_device_train_batch_size": 2,
    "disable_shuffling": True,
    "finetuning_type": "full",
    "label_smoothing_factor": 0.1,
}


def test_what_was_trained_so_far_must_fit(stopped) -> None:
    for key, value in FROZEN.items():
        with pytest.raises(UsageError) as caught:
            stopped(**{key: value})
        problems = caught.value.problems
        assert {problem.code for problem in problems} == {"E-TRAIN-083"}, key
        named = "global_batch_size" if key == "per_device_train_batch_size" else key
        assert any(f"resume_allow: {named}" in str(problem.fix) for problem in problems), key
        assert caught.value.exit_code == 2


def test_a_key_that_changes_nothing_here_may_differ(run) -> None:
    keys = {"finetuning_type": "full", "save_strategy": "steps", "save_steps": 2}
    run(**keys)
    run(**keys, lora_rank=4, num_train_epochs=2)


def test_all_that_differs_is_told_at_once(stopped) -> None:
    with pytest.raises(UsageError) as caught:
        stopped(lora_rank=4, seed=8)
    assert [problem.got for problem in caught.value.problems] == ["was 8, is 4", "was 42, is 8"]


def test_other_rows_under_the_same_name_are_noticed(run, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    keys = {"dataset": str(file), "save_strategy": "steps", "save_steps": 2}
    rows = [{"instruction": f"say {number}", "output": f"{number} it is"} for number in range(10, 26)]
    file.write_text(json.dumps(rows))
    run(**keys)
    rows[3] = dict(rows[4])
    file.write_text(json.dumps(rows))
    with pytest.raises(UsageError, match="rows to train on"):
        run(**keys)
    run(**keys, resume_allow="dataset")


def test_what_is_frozen_can_be_allowed(stopped) -> None:
    result = stopped(lora_dropout=0.0, optim="adafactor", resume_allow="lora_dropout,optim")
    assert log(result.output_dir)[-1]["current_steps"] == 8


def rates(result: Any) -> list[float]:
    return [line["lr"] for line in log(result.output_dir) if "lr" in line and line["current_steps"] > 4]


def test_a_new_learning_rate_holds_from_there_on(stopped, run, tmp_path, caplog) -> None:
    logging.getLogger("tunesmith").propagate = True
    with caplog.at_level(logging.INFO, "tunesmith"):
        result = stopped(learning_rate=1e-4)
    whole = run(output_dir=str(tmp_path / "whole"), num_train_epochs=2, learning_rate=1e-4)
    assert rates(result) == rates(whole)
    assert any("learning_rate 0.001 -> 0.0001" in record.getMessage() for record in caplog.records)


def test_more_epochs_and_another_schedule_hold_from_there_on(stopped, run, tmp_path) -> None:
    changes = {"num_train_epochs": 3, "lr_scheduler_type": "cosine"}
    result = stopped(**changes)
    assert log(result.output_dir)[-1]["current_steps"] == 12
    assert rates(result) == rates(run(output_dir=str(tmp_path / "whole"), **changes))


def test_weight_decay_and_cadence_hold_from_there_on(stopped, trainers) -> None:
    result = stopped(weight_decay=0.3, logging_steps=2, save_strategy="steps", save_steps=3)
    assert [line["current_steps"] for line in log(result.output_dir)][-2:] == [6, 8]
    assert (result.output_dir / "checkpoint-6").is_dir()
    assert {group["weight_decay"] for group in trainers[-1].optimizer.param_groups} == {0.3, 0.0}


@pytest.mark.slow
def test_the_split_of_a_batch_may_change(train, tmp_path) -> None:
    keys = {"save_strategy": "steps", "save_steps": 3}
    whole = train(output_dir=str(tmp_path / "whole"), **keys)
    resumed = train(
        output_dir=str(tmp_path / "resumed"),
        resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
    )
    expected = {line["current_steps"]: line["loss"] for line in log(whole.output_dir) if "loss" in line}
    for line in log(resumed.output_dir):
        assert line["loss"] == pytest.approx(expected[line["current_steps"]], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_may_change_without_a_bit(train, tmp_path, workers) -> None:
    whole = train(output_dir=str(tmp_path / "whole"), save_strategy="steps", save_steps=3)
    resumed = train(
        output_dir=str(tmp_path / "resumed"),
        resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"),
        dataloader_num_workers=workers,
    )
    assert_bit_identical(whole.output_dir, resumed.output_dir)
