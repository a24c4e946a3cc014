"""Evaluations that answer their rows: what they say of the model, and that they change nothing of it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.run_logs import column, curve, events, log, same_weights
from tunesmith.config.generation_checks import REPLY_FIGURES
from tunesmith.core.errors import PreemptedError
from tunesmith.train.generations import Generations

Run = Callable[..., Any]
# 12 rows to train on: 3 steps an epoch; chance matters
LORA = {"lora_dropout": 0.1, "val_size": 4, "num_train_epochs": 2, "eval_strategy": "epoch", "max_new_tokens": 8}
ANSWERS = {"predict_with_generate": True}
WORSE = {"learning_rate": 3e-2, "lr_scheduler_type": "constant", "num_train_epochs": 3, "max_new_tokens": 24}
FIGURES = ("accuracy", *REPLY_FIGURES)
ENDS = ("", "_low", "_high")


@pytest.fixture
def known(tiny_data: Path) -> dict[str, Any]:
    """A model that knows the rows of its evaluation, and is trained on others."""
    return {"model_name_or_path": str(tiny_data.parent / "tiny-llama"), "eval_dataset": "known", "max_samples": 8}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def samples(result: Any) -> list[dict[str, Any]]:
    return lines(result.output_dir / "generations.jsonl")


def test_replies_change_nothing_of_the_training(run: Run, tmp_path: Path) -> None:
    silent = run(**LORA, output_dir=str(tmp_path / "silent"))
    result = run(**LORA, **ANSWERS, log_generations=2)
    assert same_weights(silent, result)
    assert curve(silent) == curve(result)
    assert column(silent, "eval_loss") == column(result, "eval_loss")
    assert events(result, "eval_rouge-l") == [3, 6]
    assert [line["step"] for line in samples(result)] == [3, 3, 6, 6]


def test_rows_that_are_answered(run: Run, known: dict[str, Any]) -> None:
    """The first ones; with the same weights the figures and replies are those of a prediction."""
    keys = {
        **known,
        **ANSWERS,
        **WORSE,
        "num_train_epochs": 1,
        "learning_rate": 1.5e-2,
        "eval_strategy": "epoch",
        "do_sample": False,
    }
    result = run(**keys, do_train=True, do_predict=True, eval_generate_samples=8)
    found = result.metrics
    for name in (f"{figure}{end}" for figure in FIGURES for end in ENDS):
        assert found[f"eval_{name}"] == found[f"predict_{name}"]
    assert 0 < found["eval_rouge-l"] < 100, "it knows some of them"
    predicted = lines(result.output_dir / "generated_predictions.jsonl")
    assert samples(result) == [{"step": 2, "dataset": "", **line} for line in predicted[:3]]
    fewer = run(**keys, eval_generate_samples=2, log_generations=0, overwrite_output_dir=True)
    assert fewer.metrics["eval_exact_match"] == sum(one["predict"] == one["label"] for one in predicted[:2]) / 2
    assert not (fewer.output_dir / "generations.jsonl").exists(), "what an earlier run wrote is gone"


@pytest.mark.parametrize("metric", ["rouge-l", pytest.param("eval_exact_match", marks=pytest.mark.slow)])
def test_the_best_checkpoint_is_that_of_the_best_replies(run: Run, known: dict[str, Any], metric: str) -> None:
    """The learning rate wrecks what the model knew; more is better, which nobody has to say."""
    keys = {**known, **ANSWERS, **WORSE, "eval_on_start": True, "eval_strategy": "epoch", "save_strategy": "epoch"}
    result = run(**keys, load_best_model_at_end=True, metric_for_best_model=metric)
    name = f"eval_{metric.removeprefix('eval_')}"
    *evaluated, kept = column(result, name)
    assert evaluated[0] > evaluated[-1], "it forgets"
    state = json.loads((result.output_dir / "trainer_state.json").read_text())
    assert state["best_metric"] == max(evaluated[1:]) == kept == result.metrics[name]


# ---- longer ----


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys",
    [
        {"finetuning_type": "full", "bf16": True},
        {"use_dora": True, "bf16": True},
        {"finetuning_type": "oft"},
        {"finetuning_type": "peft", "peft_type": "prompt_tuning", "peft_settings": {"num_virtual_tokens": 4}},
        {"fast_path": "off", "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2},
        {"full_determinism": True, "do_sample": True},
    ],
    ids=["full", "dora", "oft", "prompt", "padded", "drawn"],
)
def test_replies_change_nothing_of_any_training(run: Run, tmp_path: Path, keys: dict[str, Any]) -> None:
    chance = {} if keys.get("finetuning_type") or "peft_type" in keys else {"lora_dropout": 0.1}
    keys = {**LORA, **keys, **chance}
    if not chance:
        del keys["lora_dropout"]
    silent = run(**keys, output_dir=str(tmp_path / "silent"))
    result = run(**keys, **ANSWERS)
    assert same_weights(silent, result)
    assert curve(silent) == curve(result)


@pytest.mark.slow
def test_drawn_replies_are_those_of_a_prediction(run: Run, known: dict[str, Any]) -> None:
    keys = {**known, **ANSWERS, "eval_strategy": "epoch", "max_new_tokens": 12, "do_sample": True}
    found = run(**keys, do_train=True, do_predict=True).metrics
    assert all(found[f"eval_{name}"] == found[f"predict_{name}"] for name in FIGURES)


@pytest.mark.slow
def test_each_dataset_has_figures_of_its_own(run: Run, known: dict[str, Any]) -> None:
    keys = {**known, **ANSWERS, "eval_dataset": "known,new", "max_samples": 4, "max_new_tokens": 24}
    keys |= {"eval_on_each_dataset": True, "eval_strategy": "epoch", "save_strategy": "epoch"}
    result = run(**keys, load_best_model_at_end=True, metric_for_best_model="known_rouge-l", log_generations=1)
    assert events(result, "eval_known_rouge-l") == events(result, "eval_new_rouge-l")
    assert result.metrics["eval_known_rouge-l"] > result.metrics["eval_new_rouge-l"]
    assert [(one["step"], one["dataset"]) for one in samples(result)] == [(1, "known"), (1, "new")]


@pytest.mark.slow
@pytest.mark.parametrize("reply", [1, 6])
def test_a_stop_between_replies_loses_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: int
) -> None:
    keys = {**LORA, **ANSWERS, "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    keys |= {"load_best_model_at_end": True, "metric_for_best_model": "rouge-1"}
    whole = run(**keys, output_dir=str(tmp_path / "whole"))
    original, calls = Generations._next, [0]

    def stopped(self: Any, replies: Any) -> Any:
        calls[0] += 1
        if calls[0] == reply:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, replies)

    monkeypatch.setattr(Generations, "_next", stopped)
    with pytest.raises(PreemptedError) as caught:
        run(**keys)
    step = 2 if reply == 1 else 4
    folder = tmp_path / "out" / f"checkpoint-{step}"
    assert caught.value.problems[0].where == str(folder)
    assert json.loads((folder / "control.json").read_text()) == {"save": True}
    again = run(**keys)
    assert same_weights(whole, again)
    assert samples(whole) == samples(again)
    timed = ("elapsed_time", "remaining_time")
    evaluated = [{k: v for k, v in line.items() if k not in timed} for line in log(whole) if "eval_loss" in line]
    assert [
        {k: v for k, v in line.items() if k not in timed} for line in log(again) if "eval_loss" in line
    ] == evaluated


@pytest.mark.slow
def test_two_processes_share_the_rows(
    run: Run, launch: Callable[..., Any], known: dict[str, Any], tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    keys = {**known, **ANSWERS, "max_samples": 7, "max_new_tokens": 24, "eval_strategy": "epoch"}
    one = run(**keys, output_dir=str(tmp_path / "one"))
    base = {"dataset": "new", "dataset_dir": str(tiny_data), "per_device_train_batch_size": 2, "num_train_epochs": 1}
    base |= {"learning_rate": 1e-3, "logging_steps": 1, "save_strategy": "no", "use_cpu": True}
    told = launch(2, {**base, **keys, "output_dir": str(tmp_path / "two")})
    evaluated = next(line for line in told if "eval_loss" in line)
    names = [f"eval_{figure}{end}" for figure in FIGURES for end in ENDS]
    assert {name: evaluated[name] for name in names} == {name: one.metrics[name] for name in names}
    assert lines(tmp_path / "two" / "generations.jsonl") == samples(one)


@pytest.mark.slow
def test_a_row_without_room_has_an_empty_reply(
    run: Run, known: dict[str, Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import logging

    monkeypatch.setattr(logging.getLogger("tunesmith"), "propagate", True)
    result = run(**known, **ANSWERS, eval_strategy="epoch", kv_cache_gb=1e-6)
    assert "8 of 8 rows have no reply" in caplog.text
    assert result.metrics["eval_exact_match"] == 0
