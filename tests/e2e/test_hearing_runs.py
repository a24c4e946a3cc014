"""Runs of a model that hears: stories260K behind a random encoder learns which of three tones it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMultimodalLM, AutoProcessor

from tests.hearing import hearing_model, tone, tone_rows
from tests.stories import training_keys
from tunesmith.config import load_config
from tunesmith.train.run import train

TRAIN, HELD = 48, 30


@pytest.fixture(scope="session")
def hearing(tmp_path_factory: pytest.TempPathFactory, stories: Path) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("hearing")
    data = folder / "data"
    return hearing_model(folder / "model", stories), tone_rows(data, TRAIN), tone_rows(data, HELD, first=TRAIN)


def run(hearing: tuple[Path, Path, Path], out: Path, **keys: Any) -> Any:
    model, rows, held = hearing
    settings = {**training_keys(model, rows, held, out), "max_steps": 60, "learning_rate": 1e-3, **keys}
    return train(load_config(settings, {}, verb="train"))


HEARS = {"freeze_vision_tower": False, "freeze_multi_modal_projector": False}
LORA = {
    "finetuning_type": "lora",
    "lora_rank": 16,
    "additional_target": "multi_modal_projector",
    "max_steps": 90,
    "learning_rate": 2e-3,
}


@pytest.mark.slow
@pytest.mark.parametrize("keys", [HEARS, LORA], ids=["full", "lora and projector"])
def test_it_learns_which_tone_it_hears(hearing: Any, tmp_path: Path, torch_one_thread: None, keys: Any) -> None:
    result = run(hearing, tmp_path, **keys)
    assert result.metrics["eval_accuracy"] >= 0.95
    assert json.loads((tmp_path / "self_proof.json").read_text())["holds"], "as transformers computes it, with sound"
    if keys is HEARS:
        assert _named(tmp_path, hearing[2]) >= 0.95


def _named(folder: Path, rows: Path) -> float:
    """The share of held-out tones that transformers' own model and processor name, from the saved folder."""
    model = AutoModelForMultimodalLM.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    right = []
    for row in json.loads(rows.read_text()):
        (_, answer), name = row["messages"], row["audios"][0]
        sound = tone(answer["content"].strip(), int(Path(name).stem)).astype("float32") * 8000 / 32768
        inputs = processor(audio=[sound], text="<|AUDIO|>The sound is", sampling_rate=16_000, return_tensors="pt")
        with torch.no_grad():
            written = model.generate(**inputs, max_new_tokens=5, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        right.append(processor.tokenizer.decode(written).strip().startswith(answer["content"].strip()))
    return sum(right) / len(right)
