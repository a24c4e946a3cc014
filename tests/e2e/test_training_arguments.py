"""What transformers' training arguments do here, first of all where our Trainer has its own way of doing it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from tunesmith.core.errors import DivergedError, MachineError, UsageError
from tunesmith.train.trainer import Trainer

Run = Callable[..., Any]


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> list[Trainer]:
    """The Trainer of every run that trains."""
    found = []
    original = Trainer.train

    def train(self: Trainer, *arguments: Any, **others: Any) -> Any:
        found.append(self)
        return original(self, *arguments, **others)

    monkeypatch.setattr(Trainer, "train", train)
    return found


def log(result: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (result.output_dir / "trainer_log.jsonl").read_text().splitlines()]


def column(result: Any, name: str) -> list[Any]:
    return [line[name] for line in log(result) if name in line]


def events(result: Any, name: str) -> list[int]:
    """Steps at which the log has a value of that name."""
    return [line["current_steps"] for line in log(result) if name in line]


# ---- how long, how fast ----


@pytest.mark.parametrize(
    ("keys", "steps"),
    [
        ({"num_train_epochs": 0.5}, 2),
        ({"max_steps": 6}, 6),
        ({"max_samples": 14}, 4),
        ({"max_samples": 14, "dataloader_drop_last": True}, 3),
    ],
)
def test_the_number_of_steps(run: Run, keys: dict[str, Any], steps: int) -> None:
    assert len(column(run(**keys), "loss")) == steps


@pytest.mark.parametrize(
    ("keys", "rates"),
    [
        ({}, [1, 0.75, 0.5, 0.25]),
        ({"learning_rate": 2e-3}, [2, 1.5, 1, 0.5]),
        ({"lr_scheduler_type": "constant"}, [1, 1, 1, 1]),
        ({"warmup_steps": 2}, [0, 0.5, 1, 0.5]),
        ({"warmup_steps": 0.5}, [0, 0.5, 1, 0.5]),
        (
            {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 5e-4}},
            [0.75 + 0.25 * math.cos(math.pi * step / 4) for step in range(4)],
        ),
    ],
)
def test_the_learning_rate_follows_its_schedule(run: Run, keys: dict[str, Any], rates: list[float]) -> None:
    assert column(run(**keys), "lr") == pytest.approx([rate * 1e-3 for rate in rates])


# ---- the optimizer ----


def test_the_optimizer_has_the_values_that_were_asked_for(run: Run, trainers: list[Trainer]) -> None:
    run(max_steps=1, weight_decay=0.1, adam_beta1=0.8, adam_beta2=0.9, adam_epsilon=1e-6, finetuning_type="full")
    run(max_steps=1, optim="sgd", optim_args="momentum=0.5", overwrite_output_dir=True)
    adam, sgd = (trainer.optimizer.optimizer for trainer in trainers)
    assert type(adam) is torch.optim.AdamW
    decayed, plain = adam.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0)
    assert {parameter.ndim for parameter in plain["params"]} == {1}, "norms do not decay"
    assert (decayed["betas"], decayed["eps"]) == ((0.8, 0.9), 1e-6)
    assert type(sgd) is torch.optim.SGD
    assert sgd.param_groups[0]["momentum"] == 0.5


@pytest.mark.parametrize(("limit", "moved"), [(0.01, 0.01), (0.0, None), (1e6, None)])
def test_the_gradient_is_clipped(run: Run, tiny_model: Path, limit: float, moved: float | None) -> None:
    """One step of plain descent with rate 1 moves the weights by the gradient itself."""
    from safetensors.torch import load_file

    keys = {"optim": "sgd", "learning_rate": 1.0, "max_steps": 1, "finetuning_type": "full"}
    result = run(**keys, max_grad_norm=limit)
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_model, result.output_dir))
    distance = math.sqrt(sum(float((after[name].float() - before[name].float()).square().sum()) for name in after))
    (norm,) = column(result, "grad_norm")
    assert norm > 1, "the log tells the norm before clipping"
    assert distance == pytest.approx(moved if moved is not None else norm, rel=1e-3)


@pytest.mark.parametrize("optim", ["adamw_bnb_8bit", "galore_adamw"])
def test_an_optimizer_that_is_not_installed_is_an_error(run: Run, optim: str) -> None:
    with pytest.raises(MachineError) as caught:
        run(optim=optim, optim_target_modules="all-linear")
    assert caught.value.code == "E-TRAIN-010"
    assert f"optim: {optim}" in str(caught.value)


# ---- the order of rows ----


def test_the_data_seed_alone_decides_the_order(run: Run) -> None:
    """With a learning rate of 0 the losses tell which rows made a step."""

    def losses(**keys: Any) -> list[float]:
        return column(run(learning_rate=0.0, overwrite_output_dir=True, **keys), "loss")

    assert losses(seed=1, data_seed=9) == losses(seed=2, data_seed=9)
    assert losses(seed=1) == losses(seed=2, data_seed=1), "without it, the seed decides"
    assert losses(seed=1) != losses(seed=1, data_seed=9)


def rows(trainer: Trainer) -> list[list[int]]:
    """Row numbers of every micro-batch of the first epoch."""
    return list(trainer.get_train_dataloader().batch_sampler)


@pytest.mark.parametrize("keys", [{"disable_shuffling": True}, {"train_sampling_strategy": "sequential"}])
def test_rows_can_be_taken_in_their_order(run: Run, trainers: list[Trainer], keys: dict[str, Any]) -> None:
    run(max_steps=1, **keys)
    run(max_steps=1, overwrite_output_dir=True)
    assert rows(trainers[0]) == [list(range(start, start + 4)) for start in range(0, 16, 4)]
    assert rows(trainers[0]) != rows(trainers[1])
    assert sorted(chain(*rows(trainers[1]))) == list(range(16))


@pytest.mark.parametrize("keys", [{"group_by_length": True}, {"train_sampling_strategy": "group_by_length"}])
def test_rows_of_similar_length_come_together(run: Run, trainers: list[Trainer], keys: dict[str, Any]) -> None:
    run(max_steps=1, **keys)
    lengths = trainers[0].train_dataset.lengths
    spans = [(min(lengths[row] for row in batch), max(lengths[row] for row in batch)) for batch in rows(trainers[0])]
    spans.sort()
    assert all(before[1] <= after[0] for before, after in pairwise(spans)), "no overlap"


def test_loading_rows_in_other_processes_changes_nothing(run: Run, trainers: list[Trainer]) -> None:
    settings = {"dataloader_num_workers": 1, "dataloader_prefetch_factor": 3, "dataloader_persistent_workers": True}
    here = column(run(num_train_epochs=2), "loss")
    there = column(run(num_train_epochs=2, overwrite_output_dir=True, **settings), "loss")
    assert here == there
    loader = trainers[1].get_train_dataloader()
    assert (loader.num_workers, loader.prefetch_factor, loader.persistent_workers) == (1, 3, True)


# ---- noise, memory, chance ----


@pytest.mark.parametrize("method", ["lora", "full"])
def test_noise_is_added_in_training_only(run: Run, method: str) -> None:
    keys = {"learning_rate": 0.0, "val_size": 4, "eval_strategy": "epoch", "finetuning_type": method}
    plain, noisy = run(**keys), run(**keys, neftune_noise_alpha=50, overwrite_output_dir=True)
    assert plain.metrics["eval_loss"] == noisy.metrics["eval_loss"]
    assert abs(plain.metrics["train_loss"] - noisy.metrics["train_loss"]) > 0.01


def test_the_device_cache_is_emptied(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[int] = []
    monkeypatch.setattr("transformers.trainer.clear_device_cache", lambda: emptied.append(1))
    run(torch_empty_cache_steps=2)
    assert len(emptied) == 2


def test_memory_is_measured_on_request(run: Run) -> None:
    assert "train_mem_cpu_alloc_delta" not in run(max_steps=1).metrics
    assert "train_mem_cpu_alloc_delta" in run(max_steps=1, skip_memory_metrics=False, overwrite_output_dir=True).metrics


def test_full_determinism_forbids_other_algorithms(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_LAUNCH_BLOCKING", "CUBLAS_WORKSPACE_CONFIG", "ASCEND_LAUNCH_BLOCKING", "HCCL_DETERMINISTIC"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("FLASH_ATTENTION_DETERMINISTIC", "")
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    try:
        run(max_steps=1, full_determinism=True)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


def test_the_model_is_compiled_on_request(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCELERATE_DYNAMO_BACKEND", "ACCELERATE_DYNAMO_MODE"):  # so that what transformers sets is taken back
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    compiled = []

    def compile_(model: Any, **settings: Any) -> Any:
        compiled.append(settings)
        return model

    monkeypatch.setattr(torch, "compile", compile_)
    run(max_steps=1)
    assert compiled == []
    run(max_steps=1, overwrite_output_dir=True, torch_compile=True)
    assert compiled[0]["backend"] == "inductor"
    run(
        max_steps=1,
        overwrite_output_dir=True,
        torch_compile_backend="eager",
        torch_compile_mode="reduce-overhead",
    )
    assert (compiled[-1]["backend"], compiled[-1]["mode"]) == ("eager", "reduce-overhead")


# ---- logs ----


@pytest.mark.parametrize(
    ("keys", "steps"),
    [
        ({"logging_steps": 2}, [2, 4]),
        ({"logging_steps": 2, "logging_first_step": True}, [1, 2, 4]),
        ({"logging_steps": 0.75}, [3]),
        ({"logging_strategy": "epoch"}, [4]),
    ],
)
def test_when_the_log_is_written(run: Run, keys: dict[str, Any], steps: list[int]) -> None:
    assert events(run(**keys), "loss") == steps


def test_transformers_talks_as_loud_as_it_is_told(run: Run) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity()
    try:
        run(max_steps=1)
        assert logging.get_verbosity() == logging.ERROR
        run(max_steps=1, log_level="info", overwrite_output_dir=True)
        assert logging.get_verbosity() == logging.INFO
    finally:
        logging.set_verbosity(before)


def test_a_service_that_is_not_installed_is_an_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.integrations.get_available_reporting_integrations", lambda: ["tensorboard"])
    with pytest.raises(MachineError) as caught:
        run(report_to="wandb,tensorboard")
    assert caught.value.code == "E-TRAIN-011"
    assert "pip install wandb" in str(caught.value)


def test_tokens_per_second_without_padding(run: Run) -> None:
    metrics = run(max_steps=2, include_effective_tokens_per_second=True).metrics
    expected = metrics["train_tokens"] / metrics["train_runtime"]
    assert metrics["effective_tokens_per_sec"] == pytest.approx(expected, rel=1e-3)


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
    assert [len(batch["input_ids"]) for batch in trainers[0].get_eval_dataloader()] == [3, 1]


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


# ---- number types and devices ----


def test_watching_every_module_stops_at_the_first_overflow(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DivergedError) as caught:
        run(debug="underflow_overflow", learning_rate=1e30)
    assert caught.value.code == "E-TRAIN-012"
    assert "Detected inf/nan" in capsys.readouterr().out


def test_predicting_without_training_uses_the_number_types_of_training(run: Run) -> None:
    """Float32 norms among bfloat16 layers work only under autocast."""
    keys = {"bf16": True, "upcast_layernorm": True, "do_predict": True, "max_new_tokens": 4, "max_samples": 2}
    assert run(**keys, dataset=None, eval_dataset="known").metrics["predict_rows"] == 2


def test_the_saved_config_keeps_the_cache_on(run: Run) -> None:
    result = run(max_steps=1, finetuning_type="full")
    assert json.loads((result.output_dir / "config.json").read_text())["use_cache"] is True


def test_settings_of_ddp_reach_it(run: Run, trainers: list[Trainer]) -> None:
    settings = {"broadcast_buffers": False, "bucket_cap_mb": 7, "static_graph": True, "find_unused_parameters": True}
    run(max_steps=1, **{f"ddp_{name}": value for name, value in settings.items()})
    handler = trainers[0].accelerator.ddp_handler
    assert {name: getattr(handler, name) for name in settings} == settings
