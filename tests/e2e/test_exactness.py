"""A run is a function of its config: not of chance, of an interruption, nor of how a batch is split."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def weights(folder: Path):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def log(folder: Path):
    return [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()]


def assert_bit_identical(one: Path, other: Path):
    import torch

    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


def test_the_same_run_twice_gives_the_same_bits(train, tmp_path, run_keys):
    one = train(output_dir=str(tmp_path / "one"), max_steps=4)
    two = train(output_dir=str(tmp_path / "two"), max_steps=4)
    assert_bit_identical(one.output_dir, two.output_dir)
    other = train(output_dir=str(tmp_path / "other"), max_steps=4, seed=8)
    with pytest.raises(AssertionError):
        assert_bit_identical(one.output_dir, other.output_dir)


@pytest.mark.parametrize("step", [2, 6, 8])  # in the first epoch, at its end (6 steps an epoch), in the second
def test_a_resumed_run_gives_the_bits_of_one_that_never_stopped(train, tmp_path, step):
    whole = train(output_dir=str(tmp_path / "whole"), save_strategy="steps", save_steps=2, neftune_noise_alpha=5)
    resumed = train(
        output_dir=str(tmp_path / "resumed"),
        resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"),
        neftune_noise_alpha=5,
    )
    assert_bit_identical(whole.output_dir, resumed.output_dir)
    tail = {line["current_steps"]: line["loss"] for line in log(whole.output_dir) if "loss" in line}
    for line in log(resumed.output_dir):
        assert line["loss"] == tail[line["current_steps"]]


def test_a_lora_run_with_dropout_resumes_to_the_same_bits(train, tmp_path):
    from safetensors.torch import load_file
    from torch import equal

    settings = {"finetuning_type": "lora", "lora_rank": 4, "lora_dropout": 0.1}
    whole = train(output_dir=str(tmp_path / "whole"), save_strategy="steps", save_steps=5, **settings)
    resumed = train(
        output_dir=str(tmp_path / "resumed"),
        resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-5"),
        **settings,
    )
    first, second = (load_file(run.output_dir / "adapter_model.safetensors") for run in (whole, resumed))
    assert all(equal(first[name], second[name]) for name in first)


def curve(lines):
    """(loss, gradient norm) of every step."""
    return [(line["loss"], line["grad_norm"]) for line in lines if "loss" in line]


@pytest.fixture
def reference(train, tmp_path):
    """Loss and gradient of 22 rows in steps of 4 (the last has 2), in one micro-batch each; and the evaluation."""
    result = train(output_dir=str(tmp_path / "4x1"), num_train_epochs=1, val_size=7, eval_strategy="epoch")
    return result, curve(log(result.output_dir))


@pytest.mark.parametrize(("batch", "accumulation"), [(2, 2), (1, 4)])
def test_accumulation_changes_nothing(train, tmp_path, reference, batch, accumulation):
    split = train(
        output_dir=str(tmp_path / "split"),
        num_train_epochs=1,
        val_size=7,
        eval_strategy="epoch",
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        per_device_eval_batch_size=batch,
    )
    whole, expected = reference
    for found, wanted in zip(curve(log(split.output_dir)), expected, strict=True):
        assert found == pytest.approx(wanted, rel=1e-5)
    assert split.metrics["eval_loss"] == pytest.approx(whole.metrics["eval_loss"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "accumulation"), [(2, 1), (1, 2)])
def test_two_ranks_change_nothing(launch, run_keys, tmp_path, reference, batch, accumulation):
    """15 rows to train on and 7 to evaluate: neither divides by two ranks."""
    lines = launch(
        2,
        {
            **run_keys,
            "output_dir": str(tmp_path / "ranks"),
            "num_train_epochs": 1,
            "val_size": 7,
            "eval_strategy": "epoch",
            "per_device_train_batch_size": batch,
            "gradient_accumulation_steps": accumulation,
            "per_device_eval_batch_size": 2,
        },
    )
    whole, expected = reference
    for found, wanted in zip(curve(lines), expected, strict=True):
        assert found == pytest.approx(wanted, rel=1e-5)
    evaluated = [line for line in lines if "eval_loss" in line]
    assert evaluated[-1]["eval_loss"] == pytest.approx(whole.metrics["eval_loss"], rel=1e-5)
    assert evaluated[-1]["eval_tokens"] == whole.metrics["eval_tokens"]


@pytest.fixture
def short_keys(tiny_model, tiny_data):
    """40 chats of 21 to 28 tokens, on the tiny model; packs of 100 hold four of them."""
    return {
        "model_name_or_path": str(tiny_model),
        "dataset": "known",
        "dataset_dir": str(tiny_data),
        "template": "auto",
        "max_samples": 40,
        "cutoff_len": 100,
        "num_train_epochs": 1,
    }


def test_packing_changes_neither_loss_nor_gradient(train, tmp_path, short_keys):
    """All rows in one step, as rows of their own and as packs."""
    keys = {**short_keys, "per_device_train_batch_size": 40, "learning_rate": 1e-5}
    apart = train(**keys, output_dir=str(tmp_path / "apart"))
    packed = train(**keys, output_dir=str(tmp_path / "packed"), packing=True)
    neat = train(**keys, output_dir=str(tmp_path / "neat"), neat_packing=True)
    train_split = json.loads((packed.output_dir / "data_report.json").read_text())["splits"][0]
    assert train_split["samples"] <= 12, "rows of the batch are packs"
    ((loss, norm),) = curve(log(apart.output_dir))
    assert curve(log(packed.output_dir)) == [(pytest.approx(loss, rel=1e-5), pytest.approx(norm, rel=1e-4))]
    assert log(packed.output_dir)[-1]["tokens"] == log(apart.output_dir)[-1]["tokens"] == train_split["tokens"]
    assert_bit_identical(packed.output_dir, neat.output_dir)


@pytest.mark.parametrize(("batch", "accumulation"), [(2, 2), (1, 4)])
def test_accumulation_changes_nothing_for_packs(train, tmp_path, short_keys, batch, accumulation):
    keys = {**short_keys, "packing": True, "val_size": 6, "eval_strategy": "epoch"}
    whole = train(**keys, output_dir=str(tmp_path / "whole"))
    split = train(
        **keys,
        output_dir=str(tmp_path / "split"),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
    )
    for found, wanted in zip(curve(log(split.output_dir)), curve(log(whole.output_dir)), strict=True):
        assert found == pytest.approx(wanted, rel=1e-5)
    assert split.metrics["eval_loss"] == pytest.approx(whole.metrics["eval_loss"], rel=1e-5)


def test_packing_evaluates_as_rows_do(train, tmp_path, short_keys):
    keys = {**short_keys, "val_size": 6, "eval_strategy": "epoch", "learning_rate": 0.0, "compute_accuracy": True}
    apart = train(**keys, output_dir=str(tmp_path / "apart"))
    packed = train(**keys, output_dir=str(tmp_path / "packed"), packing=True)
    for name in ("eval_loss", "eval_accuracy", "eval_tokens"):
        assert packed.metrics[name] == pytest.approx(apart.metrics[name], rel=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more processes than this machine has cores
@pytest.mark.parametrize("order", ["random", "group_by_length"])
def test_packs_are_the_same_with_any_number_of_loaders_and_after_a_resume(train, tmp_path, short_keys, order):
    keys = {**short_keys, "packing": True, "per_device_train_batch_size": 2, "train_sampling_strategy": order}
    whole = train(**keys, output_dir=str(tmp_path / "whole"), save_strategy="steps", save_steps=3)
    assert len(curve(log(whole.output_dir))) > 4, "step 3 is in the middle of the epoch"
    for workers in (1, 4):
        loaded = train(**keys, output_dir=str(tmp_path / f"loaders{workers}"), dataloader_num_workers=workers)
        assert curve(log(loaded.output_dir)) == curve(log(whole.output_dir))
        assert_bit_identical(whole.output_dir, loaded.output_dir)
    resumed = train(
        **keys,
        output_dir=str(tmp_path / "resumed"),
        resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"),
        dataloader_num_workers=1,
    )
    assert curve(log(resumed.output_dir)) == curve(log(whole.output_dir))[3:]
    assert_bit_identical(whole.output_dir, resumed.output_dir)


@pytest.mark.slow
def test_two_ranks_change_nothing_for_packs(train, launch, run_keys, short_keys, tmp_path):
    keys = {**run_keys, **short_keys, "packing": True}
    whole = train(**{**keys, "output_dir": str(tmp_path / "whole")})
    lines = launch(2, {**keys, "output_dir": str(tmp_path / "ranks"), "per_device_train_batch_size": 2})
    for found, wanted in zip(curve(lines), curve(log(whole.output_dir)), strict=True):
        assert found == pytest.approx(wanted, rel=1e-5)


def test_the_loss_is_the_mean_over_trained_tokens(train, tmp_path, stories, run_keys):
    """Step 1 and the evaluation against transformers' own model, one row at a time, summed in double precision."""
    import torch
    from transformers import AutoModelForCausalLM

    from tunesmith import load_config
    from tunesmith.data import build_datasets
    from tunesmith.models.tokenizer import load_tokenizer
    from tunesmith.render import make_renderer

    keys = {"val_size": 7, "eval_strategy": "steps", "eval_steps": 1, "max_steps": 1, "learning_rate": 0.0}
    result = train(**keys, per_device_train_batch_size=15)
    config = load_config({**run_keys, **keys})
    renderer = make_renderer(config.template, load_tokenizer(config.model))
    datasets = build_datasets(config.data, renderer, stage="sft", seed=7)
    model = AutoModelForCausalLM.from_pretrained(stories, dtype=torch.float32)

    def mean_loss(dataset):
        total = units = 0.0
        for number in range(len(dataset)):
            ids = torch.tensor(dataset[number]["input_ids"])[None].long()
            trained = torch.tensor(dataset[number]["trained"])[1:]
            with torch.no_grad():
                logp = model(ids).logits[0, :-1].double().log_softmax(-1)
            total -= logp[torch.arange(len(trained)), ids[0, 1:]][trained].sum().item()
            units += int(trained.sum())
        return total / units

    assert result.metrics["train_loss"] == pytest.approx(mean_loss(datasets.train), rel=1e-5)
    (validation,) = datasets.eval.values()
    assert result.metrics["eval_loss"] == pytest.approx(mean_loss(validation), rel=1e-5)
