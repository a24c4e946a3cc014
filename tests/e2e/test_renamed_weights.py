"""Models whose files have other names than their weights, as mixtures of experts: a run goes on, and ends with its best
weights, as if the names were the same. transformers' Trainer takes no such weight, and says nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

import tunesmith
from tests.tiny_models import tiny_model as tiny_model_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("torch_one_thread")]


@pytest.fixture(scope="session", params=["mixtral", "gpt_neox"])
def renamed(request: Any, tmp_path_factory: Any, tiny_model: Path) -> Path:
    folder: Path = tmp_path_factory.mktemp(request.param)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = tiny_model_of(request.param, None, vocab_size=len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with safe_open(folder / "model.safetensors", "pt") as tensors:
        assert set(tensors.keys()) - set(model.state_dict()), "this release of transformers has one name for both"
    return folder


def train(model: Path, data: Path, folder: Path, **settings: Any) -> Path:
    keys = {
        "model_name_or_path": str(model),
        "dataset": str(data / "new_openai.jsonl"),
        "finetuning_type": "full",
        "output_dir": str(folder),
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "max_steps": 4,
        "save_steps": 2,
        "logging_steps": 1,
        "use_cpu": True,
        **settings,
    }
    return tunesmith.train(keys).output_dir


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(folder).state_dict())


def test_a_run_goes_on_to_the_bit(renamed: Path, tiny_data: Path, tmp_path: Path) -> None:
    whole = weights(train(renamed, tiny_data, tmp_path / "whole"))
    train(renamed, tiny_data, tmp_path / "parts", max_steps=2)
    parts = weights(train(renamed, tiny_data, tmp_path / "parts"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_it_ends_with_the_best_weights(renamed: Path, tiny_data: Path, tmp_path: Path) -> None:
    keys = {"eval_dataset": str(tiny_data / "new_openai.jsonl"), "eval_strategy": "steps", "eval_steps": 2}
    keys |= {"load_best_model_at_end": True, "learning_rate": 3.0}
    folder = train(renamed, tiny_data, tmp_path, max_steps=6, **keys)
    state = json.loads((folder / "trainer_state.json").read_text())
    best, last = Path(state["best_model_checkpoint"]), folder / "checkpoint-6"
    assert best.name != last.name, "the rate is far too high for the last to be the best"
    found, wanted = weights(folder), weights(best)
    assert all(torch.equal(value, wanted[name]) for name, value in found.items())
