"""Runs of supervised fine-tuning near a reference (`use_asft_loss`)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.pairs import steps_of
from tests.unit.objectives.test_asft import ALPHA, by_hand
from tunesmith.core.errors import TunesmithError

Run = Callable[..., Any]


@pytest.fixture
def near(train: Run) -> Run:
    """`near(key=value, ...)`: a short run of stories260K, LoRA, on 22 instructions."""
    keys = {"use_asft_loss": True, "asft_alpha": ALPHA, "finetuning_type": "lora", "lora_rank": 4, "max_steps": 4}
    return lambda **changes: train(**{**keys, "overwrite_output_dir": True, **changes})


@pytest.mark.parametrize("fast_path", ["require", "off"])
def test_the_loss_of_a_run_is_the_formula(
    near: Run, stories: Path, other: Path, run_keys: dict[str, Any], fast_path: str
) -> None:
    """Step 1 and the evaluation against transformers' logits of both models, a row at a time, divided once."""
    from transformers import AutoModelForCausalLM

    from tunesmith import load_config
    from tunesmith.data import build_datasets
    from tunesmith.models.tokenizer import load_tokenizer
    from tunesmith.render import make_renderer

    keys = {"val_size": 7, "eval_strategy": "steps", "eval_steps": 1, "max_steps": 1, "learning_rate": 0.0}
    split = {"per_device_train_batch_size": 5, "gradient_accumulation_steps": 3}
    result = near(ref_model=str(other), finetuning_type="full", fast_path=fast_path, **keys, **split)
    config = load_config({**run_keys, **keys})
    renderer = make_renderer(config.template, load_tokenizer(config.model))
    datasets = build_datasets(config.data, renderer, stage="sft", seed=7)
    models = [AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in (stories, other)]
    with torch.no_grad():
        found = {
            "train": by_hand(*models, list(datasets.train)),
            "eval": by_hand(*models, list(datasets.eval["validation"])),
        }
    for name, samples in (("train", datasets.train), ("eval", datasets.eval["validation"])):
        loss, apart = (float(one) / samples.num_trained for one in found[name])
        assert result.metrics[f"{name}_loss"] == pytest.approx(loss, rel=1e-5)
        told = steps_of(result)[0]["kl"] if name == "train" else result.metrics["eval_kl"]
        assert told == pytest.approx(apart, rel=1e-5)


def test_an_adapter_begins_at_its_reference_and_is_held_near_it(near: Run) -> None:
    """With a weight of 0 it is DFT."""
    keys = {"learning_rate": 5e-3}
    plain = steps_of(near(use_asft_loss=False, use_dft_loss=True, **keys))
    loose, held = steps_of(near(asft_alpha=0.0, **keys)), steps_of(near(asft_alpha=20.0, **keys))
    assert held[0]["loss"] == pytest.approx(plain[0]["loss"], rel=1e-6)
    assert held[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert 0 < held[-1]["kl"] < 0.5 * loose[-1]["kl"]
    for one, other in zip(loose, plain, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys",
    [
        {"finetuning_type": "full"},
        {"pissa_init": True},
        {"additional_target": "lm_head"},
        {"packing": True},
        {"packing": True, "fast_path": "off"},
        {"finetuning_type": "freeze", "freeze_trainable_layers": 1, "bf16": True},
        {"streaming": True},
        {"finetuning_type": "oft", "oft_block_size": 8},
    ],
    ids=lambda keys: " ".join(keys),
)
def test_every_method_begins_at_its_reference(near: Run, keys: dict[str, Any]) -> None:
    first, *_, last = steps_of(near(**keys))
    assert first["kl"] == pytest.approx(0, abs=1e-3 if "bf16" in keys else 1e-6)
    assert last["kl"] > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_run_learns(near: Run, run_keys: dict[str, Any], kind: str) -> None:
    """The rows become likelier, by the plain loss too."""
    how = {"eval_dataset": run_keys["dataset"], "eval_strategy": "epoch", "eval_on_start": True, "cutoff_len": 96}
    rate = 2e-2 if kind == "lora" else 3e-3
    result = near(finetuning_type=kind, learning_rate=rate, max_steps=-1, num_train_epochs=8, asft_alpha=0.05, **how)
    before, *_, after = _evaluations(result)
    assert after["eval_kl"] > 0.1
    assert after["eval_nll_loss"] < 0.85 * before["eval_nll_loss"]


def _evaluations(result: Any) -> list[dict[str, Any]]:
    import json

    lines = (result.output_dir / "trainer_log.jsonl").read_text().splitlines()
    return [one for one in map(json.loads, lines) if "eval_loss" in one]


@pytest.mark.slow
def test_a_resumed_run_gives_the_same_bits(near: Run, tmp_path: Path) -> None:
    keys = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "lora_dropout": 0.1}
    whole = near(output_dir=str(tmp_path / "whole"), **keys)
    near(output_dir=str(tmp_path / "parts"), **keys)
    shutil.rmtree(tmp_path / "parts" / "checkpoint-6")
    (tmp_path / "parts" / "adapter_model.safetensors").unlink()
    more = {"resume_from_checkpoint": True, "overwrite_output_dir": False}
    parts = near(output_dir=str(tmp_path / "parts"), **{**keys, **more})
    one, two = (load_file(result.output_dir / "adapter_model.safetensors") for result in (whole, parts))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
def test_two_ranks_are_one(near: Run, launch: Run, run_keys: dict[str, Any], other: Path) -> None:
    """The last step has a row for one of them only."""
    keys = {
        **run_keys,
        "use_asft_loss": True,
        "asft_alpha": ALPHA,
        "ref_model": str(other),
        "finetuning_type": "full",
        "max_samples": 13,
        "num_train_epochs": 1,
        "max_steps": 4,
        "cutoff_len": 96,
    }
    lines = launch(2, {**keys, "per_device_train_batch_size": 2, "output_dir": f"{run_keys['output_dir']}2"})
    alone = steps_of(near(**{**keys, "per_device_train_batch_size": 4}))
    both = [one for one in lines if "loss" in one]
    assert len(both) == len(alone) == 4
    for one, two in zip(both, alone, strict=True):
        for name in ("loss", "kl", "grad_norm"):
            assert one[name] == pytest.approx(two[name], rel=1e-4), name


def test_a_reference_of_another_vocabulary_is_refused(near: Run, tiny_model: Path) -> None:
    with pytest.raises(TunesmithError) as caught:
        near(ref_model=str(tiny_model))
    assert caught.value.problems[0].code == "E-TRAIN-069"
