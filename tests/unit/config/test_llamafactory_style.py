"""Configs as the field writes them load unchanged. Only harmless keys may earn a warning."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tunesmith.config import load_config

FOLDER = Path(__file__).parents[2] / "assets" / "llamafactory_style"
FILES = {
    "sft_lora": "train",
    "sft_full": "train",
    "sft_freeze": "train",
    "mllm_lora": "train",
    "pt_lora": "train",
    "predict": "train",
    "eval": "eval",
    "export": "export",
    "chat": "chat",
}


@pytest.mark.parametrize(("name", "verb"), FILES.items())
def test_a_config_in_the_fields_style_loads_unchanged(name: str, verb: str) -> None:
    config = load_config(FOLDER / f"{name}.yaml", verb=verb)
    assert load_config(config.source, verb="check").verb == verb
    assert load_config(config.to_flat(), verb=verb) == config
    named = set(re.findall(r"[a-z_]+(?= \()", " ".join(config.warnings)))
    assert named == set()


def test_every_file_of_the_folder_is_tested() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == FILES.keys()


def test_the_values_have_their_usual_meaning() -> None:
    config = load_config(FOLDER / "sft_lora.yaml")
    assert config.method.lora_rank == 8
    assert config.method.lora_target == ("all",)
    assert config.data.dataset == ("identity", "alpaca_en_demo")
    assert config.data.val_size == 0.1
    assert config.train.overwrite_output_dir is True
    assert config.train.hf["warmup_steps"] == 0.1
    assert config.train.hf["learning_rate"] == 1e-4
    assert "resume_from_checkpoint" not in config.train.hf
    full = load_config(FOLDER / "sft_full.yaml")
    assert full.train.hf["learning_rate"] == 1e-5
    assert full.train.hf["eval_strategy"] == "epoch"
    assert load_config(FOLDER / "predict.yaml").train.do_train is False
