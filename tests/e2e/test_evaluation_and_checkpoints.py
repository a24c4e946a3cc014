"""Training arguments of evaluation and of checkpoints: when, in which number type, which are kept, how one resumes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.run_logs import column, events
from tunesmith.core.errors import UsageError
from tunesmith.train.trainer import Trainer

Run = Callable[..., Any]


# ---- evaluation ----

EVALUATED = {"val_size": 4, "num_train_epochs": 2}  # 12 rows to train on: 3 steps an epoch


@pytest.mark.parametrize(
    ("keys", "steps"),
    [
        ({"eval_strategy": "epoch"}, [3, 6]),
        ({"eval_strategy": "epoch", "eval_on_start": True}, [0, 3, 6]),
        ({"eval_strategy": "epoch", "eval_delay": 1.5}, [6]),
        ({"eval_strategy": "steps", "eval_steps": 2}, [2, 4, 6]),
        ({"eval_strategy": "steps", "eval_steps": 2, "eval_delay": 3}, [4, 6]),
        ({"eval_strategy": "steps", "eval_steps": 0.5}, [3, 6]),
        ({"do_eval": True, "do_train": True}, [6]),
        ({"do_eval": True}, [0]),
    ],
)
def test_when_evaluation_runs(run: Run, keys: dict[str, Any], steps: list[int]) -> None:
    assert events(run(**EVALUATED, **keys), "eval_loss") == steps


def test_the_batches_of_evaluation(run: Run, trainers: list[Trainer]) -> None:
    run(**EVALUATED, eval_strategy="epoch", per_device_eval_batch_size=3)
    assert [len(batch["lengths"]) for batch in trainers[0].get_eval_dataloader()] == [3, 1]


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_evaluation_may_halve_the_weights(run: Run, trainers: list[Trainer], kind: str) -> None:
    """Not those that are saved, and not those that are trained on."""
    from safetensors.torch import load_file

    keys = {**EVALUATED, "eval_strategy": "epoch", "finetuning_type": "full"}
    whole = run(**keys)
    during = column(whole, "eval_loss")
    half = run(**keys, overwrite_output_dir=True, **{f"{kind}_full_eval": True})
    assert {parameter.dtype for parameter in trainers[1].model.parameters()} == {
        {"bf16": torch.bfloat16, "fp16": torch.float16}[kind]
    }
    assert column(half, "eval_loss")[:2] == during, "evaluation during training is as it was"
    assert half.metrics["eval_loss"] != whole.metrics["eval_loss"]
    assert half.metrics["eval_loss"] == pytest.approx(whole.metrics["eval_loss"], rel=0.02)
    saved = load_file(half.output_dir / "model.safetensors").values()
    assert {tensor.dtype for tensor in saved} == {torch.float32}


# ---- checkpoints ----

WORSE = {"learning_rate": 3e-2, "lr_scheduler_type": "constant", "num_train_epochs": 6, "val_size": 4}


def checkpoints(result: Any) -> list[str]:
    return sorted(path.name for path in result.output_dir.glob("checkpoint-*"))


def test_only_the_newest_checkpoints_are_kept(run: Run) -> None:
    result = run(save_strategy="steps", save_steps=1, save_total_limit=2)
    assert checkpoints(result) == ["checkpoint-3", "checkpoint-4"]


def test_a_checkpoint_without_the_optimizer_is_smaller_and_says_so(
    run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import logging

    monkeypatch.setattr(logging.getLogger("tunesmith"), "propagate", True)
    result = run(save_strategy="steps", save_steps=2, save_only_model=True)
    names = {path.name for path in (result.output_dir / "checkpoint-2").iterdir()}
    assert "adapter_model.safetensors" in names
    assert not names & {"optimizer.pt", "scheduler.pt", "rng_state.pth"}
    assert "optimizer" not in caplog.text
    run(resume_from_checkpoint=str(result.output_dir / "checkpoint-2"))
    assert "no state of the optimizer" in caplog.text


@pytest.mark.parametrize("greater", [True, False])
def test_what_the_best_model_is_can_be_turned_round(run: Run, greater: bool) -> None:
    keys = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    result = run(**WORSE, **keys, greater_is_better=greater)
    evaluated = column(result, "eval_loss")[:-1]  # the last one is of the model that was kept
    assert result.metrics["eval_loss"] == pytest.approx((max if greater else min)(evaluated), rel=1e-5)


def test_a_checkpoint_may_be_saved_for_every_new_best_only(run: Run) -> None:
    result = run(**WORSE, eval_strategy="epoch", save_strategy="best")
    losses = column(result, "eval_loss")
    better = [epoch for epoch, loss in enumerate(losses, 1) if loss < min([math.inf, *losses[: epoch - 1]])]
    assert 0 < len(better) < 6, "some, and not all"
    assert checkpoints(result) == sorted(f"checkpoint-{3 * epoch}" for epoch in better)


def test_a_metric_that_no_evaluation_has_is_an_error(run: Run) -> None:
    with pytest.raises(UsageError) as caught:
        run(**EVALUATED, eval_strategy="epoch", early_stopping_steps=2, metric_for_best_model="bleu")
    assert caught.value.code == "E-TRAIN-013"
    assert "metric_for_best_model: loss" in str(caught.value)


def test_a_resumed_epoch_may_begin_again(run: Run, tmp_path: Path) -> None:
    """With a learning rate of 0 the losses tell which rows made a step."""
    keys = {"learning_rate": 0.0, "num_train_epochs": 2}
    whole = column(run(**keys, save_strategy="steps", save_steps=2), "loss")
    resume = {"resume_from_checkpoint": str(tmp_path / "out" / "checkpoint-2")}
    plain = run(**keys, **resume, output_dir=str(tmp_path / "plain"))
    assert column(plain, "loss") == whole[2:]
    again = run(**keys, **resume, output_dir=str(tmp_path / "again"), ignore_data_skip=True)
    assert column(again, "loss") == whole[:6]


@pytest.mark.parametrize(("restore", "last"), [(False, 6), (True, 4)])
def test_patience_may_be_counted_on(run: Run, tmp_path: Path, restore: bool, last: int) -> None:
    """Nothing ever improves. At the third epoch two of three evaluations without progress are counted."""
    keys = {
        "learning_rate": 0.0,
        "val_size": 4,
        "num_train_epochs": 20,
        "eval_strategy": "epoch",
        "early_stopping_steps": 3,
    }
    assert column(run(**keys, save_strategy="epoch"), "epoch")[-1] == 4
    resumed = run(
        **keys,
        output_dir=str(tmp_path / "more"),
        resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-9"),
        restore_callback_states_from_checkpoint=restore,
    )
    assert column(resumed, "epoch")[-1] == last
