"""The committed list of training arguments equals those of the installed transformers."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.config_samples import sample
from tunesmith.config import load_config
from tunesmith.config.hf import LIST
from tunesmith.config.keys import Key, all_keys

SCRIPT = Path(__file__).parents[2] / "scripts" / "generate_hf_arguments.py"


@pytest.fixture(scope="module")
def installed() -> dict[str, Any]:
    return {entry["name"]: entry for entry in runpy.run_path(str(SCRIPT))["collect"]()}


def test_the_list_of_training_arguments_is_that_of_the_installed_transformers(installed: dict[str, Any]) -> None:
    committed = {entry["name"]: entry for entry in json.loads(LIST.read_text(encoding="utf-8"))}
    assert committed == installed, "run: python scripts/generate_hf_arguments.py"


# What transformers makes of these depends on the machine, or has another type.
OTHERWISE = {"debug", "fp16", "tf32", "use_cpu", "ddp_backend", "report_to", "output_dir"}
PASSED_ON = [
    key for key in all_keys().values() if key.passed_on and key.mark.state == "works" and key.name not in OTHERWISE
]
NEEDS = {
    "dataloader_prefetch_factor": {"dataloader_num_workers": 1},
    "load_best_model_at_end": {"save_strategy": "no"},
}


@pytest.mark.parametrize("key", PASSED_ON, ids=lambda key: key.name)
def test_a_training_argument_reaches_transformers(key: Key, tmp_path: Path) -> None:
    from transformers import Seq2SeqTrainingArguments

    others = {"output_dir": str(tmp_path), "use_cpu": True, **NEEDS.get(key.name, {})}
    config = load_config({**others, key.name: sample(key)}, verb="show")
    arguments = Seq2SeqTrainingArguments(**config.train.hf)
    assert getattr(arguments, key.name) == sample(key)


def test_transformers_takes_what_the_older_names_become(installed: dict[str, Any], tmp_path: Path) -> None:
    from transformers import Seq2SeqTrainingArguments

    older = {
        "warmup_ratio": 0.1,
        "evaluation_strategy": "epoch",
        "group_by_length": True,
        "no_cuda": True,
        "per_gpu_train_batch_size": 2,
        "per_gpu_eval_batch_size": 3,
        "adafactor": True,
    }
    passed_on = load_config({**older, "output_dir": str(tmp_path)}, verb="show").train.hf
    assert set(passed_on) <= set(installed)
    arguments = Seq2SeqTrainingArguments(**passed_on)
    assert arguments.get_warmup_steps(50) == 5  # a tenth of 50 steps
    assert arguments.eval_strategy == "epoch"
    assert arguments.train_sampling_strategy == "group_by_length"
    assert arguments.per_device_train_batch_size == 2
    assert arguments.optim == "adafactor"


def test_a_warm_up_ratio_of_one_warms_up_to_the_last_step(tmp_path: Path) -> None:
    from transformers import Seq2SeqTrainingArguments

    passed_on = load_config({"warmup_ratio": 1, "output_dir": str(tmp_path)}, verb="show").train.hf
    assert Seq2SeqTrainingArguments(**passed_on, use_cpu=True).get_warmup_steps(50) == 50
