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
