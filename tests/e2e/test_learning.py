"""The tiny model must learn the thing, not only run: new answers to questions that it knows."""

from __future__ import annotations

import json

import pytest

import tunesmith

METHODS = {
    "lora": {"finetuning_type": "lora", "lora_rank": 16, "learning_rate": 5e-3},
    "rslora": {"finetuning_type": "lora", "lora_rank": 16, "use_rslora": True, "learning_rate": 2e-3},
    "dora": {"finetuning_type": "lora", "lora_rank": 16, "use_dora": True, "learning_rate": 5e-3},
    "full": {"finetuning_type": "full", "learning_rate": 3e-3},
    "full, as a stream": {
        "finetuning_type": "full",
        "learning_rate": 3e-3,
        "streaming": True,
        "buffer_size": 5,
        "max_steps": 80,
    },
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 3, "learning_rate": 3e-3},
}


@pytest.fixture
def swapped(tiny_data, tmp_path):
    """12 questions that the model can answer, each with the answer of the next: all of it has to be learnt anew."""
    rows = json.loads((tiny_data / "known_alpaca.json").read_text())
    rows = list({row["output"]: row for row in rows}.values())[:12]
    new = [{**row, "output": other["output"]} for row, other in zip(rows, rows[1:] + rows[:1], strict=True)]
    path = tmp_path / "swapped.json"
    path.write_text(json.dumps(new))
    return path


def predictions(folder):
    lines = (folder / "generated_predictions.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


_QUICK = {"lora", "full"}


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=[] if name in _QUICK else [pytest.mark.slow]) for name in METHODS]
)
def test_every_method_teaches_new_answers(tiny_model, swapped, tmp_path, torch_one_thread, method):
    keys = {
        "model_name_or_path": str(tiny_model),
        "eval_dataset": str(swapped),
        "do_predict": True,
        "predict_with_generate": True,
        "do_sample": False,
        "max_new_tokens": 24,
        "use_cpu": True,
    }
    before = tunesmith.train({**keys, "output_dir": str(tmp_path / "before")})
    assert before.metrics["predict_exact_match"] == 0, "the base model gives its own answers"
    after = tunesmith.train(
        {
            **keys,
            "do_train": True,
            "dataset": str(swapped),
            "output_dir": str(tmp_path / "after"),
            "per_device_train_batch_size": 6,
            "num_train_epochs": 40,
            "lr_scheduler_type": "cosine",
            "save_strategy": "no",
            "disable_gradient_checkpointing": True,
            **METHODS[method],
        }
    )
    wrong = [line for line in predictions(after.output_dir) if line["predict"] != line["label"]]
    assert not wrong


def test_pre_training_learns_its_text(tiny_model, tiny_data, tmp_path, torch_one_thread):
    """From random weights, the loss on held-out stories falls far below that of guessing, ln(896) = 6.8 nats."""
    result = tunesmith.train(
        {
            "model_name_or_path": str(tiny_model),
            "train_from_scratch": True,
            "stage": "pt",
            "finetuning_type": "full",
            "dataset": "stories",
            "dataset_dir": str(tiny_data),
            "val_size": 8,
            "cutoff_len": 64,
            "output_dir": str(tmp_path / "out"),
            "per_device_train_batch_size": 8,
            "num_train_epochs": 20,
            "learning_rate": 5e-3,
            "eval_strategy": "epoch",
            "save_strategy": "no",
            "disable_gradient_checkpointing": True,
            "use_cpu": True,
        }
    )
    assert result.metrics["eval_loss"] < 3.0
