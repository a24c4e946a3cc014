"""What transformers' training arguments do here, first of all where our Trainer has its own way of doing it."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from itertools import chain, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.run_logs import column, events
from tunesmith.core.errors import DivergedError, MachineError
from tunesmith.train.trainer import Trainer

Run = Callable[..., Any]


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


@pytest.mark.parametrize("package", ["bitsandbytes", "torchao"])
def test_an_optimizer_that_is_not_installed_is_an_error(
    run: Run, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setattr("tunesmith.train.plan.find_spec", lambda name: None if name == package else object())
    optim = {"bitsandbytes": "adamw_8bit", "torchao": "adamw_torch_8bit"}[package]
    for keys in ({"optim": optim}, {"optim": "adamw_8bit", "use_galore": True, "finetuning_type": "full"}):
        if "use_galore" in keys and package == "torchao":
            continue
        with pytest.raises(MachineError) as caught:
            run(**keys)
        assert caught.value.code == "E-OPTIM-008"
        assert f"pip install {package}" in str(caught.value)


# ---- the order of rows ----


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("pin", [True, False])
def test_memory_is_pinned_for_a_gpu(
    run: Run, trainers: list[Trainer], monkeypatch: pytest.MonkeyPatch, pin: bool
) -> None:
    run(max_steps=1, dataloader_pin_memory=pin)
    assert trainers[0].get_train_dataloader().pin_memory is False, "nothing to pin for on a processor"
    trainers[0].args.dataloader_pin_memory = pin  # transformers takes it back where use_cpu is on
    monkeypatch.setattr(type(trainers[0].args), "device", torch.device("cuda"))
    assert trainers[0].get_train_dataloader().pin_memory is pin


# ---- noise, memory, chance ----


@pytest.mark.parametrize("method", ["lora", "full"])
def test_noise_is_added_in_training_only(run: Run, method: str) -> None:
    keys = {"learning_rate": 0.0, "val_size": 4, "eval_strategy": "epoch", "finetuning_type": method}
    plain, noisy = run(**keys), run(**keys, neftune_noise_alpha=50, overwrite_output_dir=True)
    assert noisy.metrics["eval_loss"] == pytest.approx(plain.metrics["eval_loss"], rel=1e-6)  # one padded, one flat
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
    assert {settings["dynamic"] for settings in compiled} == {True}


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


@pytest.mark.parametrize(("each", "level"), [(True, "info"), (False, "error")])
def test_transformers_talks_on_other_processes_as_it_is_told(
    run: Run, trainers: list[Trainer], monkeypatch: pytest.MonkeyPatch, each: bool, level: str
) -> None:
    """The first process of another machine counts as one of the speakers, or as a replica."""
    from transformers.utils import logging

    run(max_steps=1, log_level_replica="error", log_on_each_node=each)
    args = trainers[0].args
    args.log_level = "info"
    monkeypatch.setattr(type(args), "process_index", 8)
    assert args.get_process_log_level() == logging.log_levels[level]


@pytest.mark.parametrize("each", [True, False])
def test_the_first_process_of_every_machine_may_save(
    run: Run, trainers: list[Trainer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, each: bool
) -> None:
    run(max_steps=1, save_on_each_node=each)
    monkeypatch.setattr(type(trainers[0].args), "process_index", 8)
    trainers[0].save_model(str(tmp_path / "there"))
    assert (tmp_path / "there" / "adapter_model.safetensors").exists() is each


def test_a_service_is_told_the_names_of_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trackio, by a stand-in for its package."""
    told: dict[str, Any] = {}
    stub = SimpleNamespace(
        __version__="1.0",
        init=lambda **names: told.update(names),
        context_vars=SimpleNamespace(current_space_id=SimpleNamespace(get=lambda: "me/space")),
        config=type("Config", (dict,), {"update": lambda *_, **__: None})(),
        log=lambda values: None,
        finish=lambda: None,
        freeze=lambda **names: told.update(frozen=names["new_space_id"]),
    )
    monkeypatch.setitem(sys.modules, "trackio", stub)
    monkeypatch.setattr("transformers.integrations.integration_utils.is_trackio_available", lambda: True)
    names = {"project": "mine", "run_name": "first"}
    spaces = {"trackio_space_id": "me/space", "trackio_bucket_id": "me/bucket", "trackio_static_space_id": "me/static"}
    run(max_steps=1, report_to="trackio", **names, **spaces)
    assert (told["project"], told["name"]) == ("mine", "first")
    assert (told["space_id"], told["bucket_id"], told["frozen"]) == ("me/space", "me/bucket", "me/static")


def test_a_service_that_is_not_installed_is_an_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.integrations.get_available_reporting_integrations", lambda: ["tensorboard"])
    with pytest.raises(MachineError) as caught:
        run(report_to="wandb,tensorboard")
    assert caught.value.code == "E-TRAIN-011"
    assert "pip install wandb" in str(caught.value)


def test_tokens_per_second_without_padding(run: Run) -> None:
    metrics = run(max_steps=2, include_effective_tokens_per_second=True).metrics
    expected = metrics["train_tokens"] / metrics["train_seconds"]
    assert metrics["effective_tokens_per_sec"] == pytest.approx(expected, rel=1e-3)


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
