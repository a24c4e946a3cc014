"""Runs of a model that sees: stories260K behind a random tower learns to name the colours of noisy pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMultimodalLM, AutoProcessor

from tests.seeing import COLOURS, colour_feedback, colour_pairs, colour_rows, coloured, seeing_model
from tests.stories import training_keys
from tunesmith.config import load_config
from tunesmith.core.errors import DataError
from tunesmith.train.run import train

TRAIN, HELD = 64, 32


@pytest.fixture(scope="session")
def seeing(tmp_path_factory, stories):
    folder = tmp_path_factory.mktemp("seeing")
    model = seeing_model(folder / "model", stories)
    return model, colour_rows(folder / "data", TRAIN), colour_rows(folder / "data", HELD, first=TRAIN)


def run(seeing, out, **keys):
    model, rows, held = seeing
    settings = {
        **training_keys(model, rows, held, out),
        "max_steps": 50,
        "learning_rate": 2e-3,
        "logging_steps": 1,
        **keys,
    }
    return train(load_config(settings, {}, verb="train"))


SEES = {"freeze_vision_tower": False, "freeze_multi_modal_projector": False}
LORA = {"finetuning_type": "lora", "lora_rank": 16, "additional_target": "multi_modal_projector", "max_steps": 90}


@pytest.mark.slow
@pytest.mark.parametrize("keys", [SEES, LORA], ids=["full", "lora and projector"])
def test_it_learns_the_colours_of_pictures(seeing, tmp_path, keys):
    result = run(seeing, tmp_path, **keys)
    assert result.metrics["eval_accuracy"] >= 0.95
    proof = json.loads((tmp_path / "self_proof.json").read_text())
    assert proof["holds"], "as transformers computes it, with pictures"
    if keys is SEES:
        assert _named(tmp_path, seeing[2]) >= 0.95


def _named(folder: Path, rows: Path) -> float:
    """The share of held-out pictures whose colour transformers' own model and processor name from the saved folder."""
    model = AutoModelForMultimodalLM.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    right = 0
    for row in json.loads(rows.read_text()):
        question, answer = row["messages"]
        from PIL import Image

        picture = Image.open(rows.parent / row["images"][0])
        inputs = processor(images=picture, text=question["content"], return_tensors="pt")
        with torch.no_grad():
            written = model.generate(**inputs, max_new_tokens=5, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        right += processor.tokenizer.decode(written).strip().startswith(answer["content"].strip())
    return right / HELD


def test_frozen_parts_stay_as_they_are(seeing, tmp_path):
    run(seeing, tmp_path, max_steps=2, do_eval=False)
    before, after = (AutoModelForMultimodalLM.from_pretrained(one).state_dict() for one in (seeing[0], tmp_path))
    changed = {name.split(".")[1] for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed <= {"language_model", "weight"}, "tower and projector are frozen unless one asks for more"
    assert "language_model" in changed


@pytest.mark.slow
def test_a_run_goes_on_to_the_bit(seeing, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(seeing, whole, max_steps=4, **SEES)
    run(seeing, parts, max_steps=2, save_steps=2, **SEES)
    run(seeing, parts, max_steps=4, save_steps=2, dataloader_num_workers=2, **SEES)
    one, other = (AutoModelForMultimodalLM.from_pretrained(folder).state_dict() for folder in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("use", ["train", "eval"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_changes_meanwhile_ends_the_run_with_its_row(seeing, tmp_path, monkeypatch, workers, use):
    from tunesmith.train import run as steps

    rows = {"train": seeing[1], "eval": seeing[2]}
    for name, made in rows.items():
        shutil.copytree(made.parent, tmp_path / name)
        rows[name] = tmp_path / name / made.name
    build = steps._build_model

    def too_late(*arguments, **keys):
        for row in json.loads(rows[use].read_text()):
            coloured("black", 1000).save(tmp_path / use / row["images"][0])
        return build(*arguments, **keys)

    monkeypatch.setattr(steps, "_build_model", too_late)
    keys = {"max_steps": 2, "fast_path": "off", "dataloader_num_workers": workers}
    with pytest.raises(DataError) as caught:
        run((seeing[0], rows["train"], rows["eval"]), tmp_path / "out", **keys)
    assert caught.value.code == "E-MEDIA-022"
    assert rows[use].name in caught.value.problems[0].where


@pytest.mark.slow
@pytest.mark.parametrize(
    "batches",
    [{}, {"fast_path": "off"}, {"precompute_ref_log_probs": True}],
    ids=["flat", "padded", "reference asked before"],
)
@pytest.mark.parametrize("stage", ["dpo", "kto"])
def test_preferences_about_pictures_are_learned(seeing, tmp_path, stage, batches):
    make = colour_feedback if stage == "kto" else colour_pairs
    data = seeing[1].parent
    rows, held = make(data, TRAIN), make(data, HELD, first=TRAIN)
    keys = {"learning_rate": 1e-3, "logging_steps": 5, **SEES, **batches}
    result = run((seeing[0], rows, held), tmp_path, stage=stage, compute_accuracy=False, **keys)
    assert result.metrics["eval_rewards/accuracies"] >= 0.95, result.metrics


def test_a_text_model_refuses_pictures(seeing, stories, tmp_path):
    with pytest.raises(DataError) as caught:
        run((stories, *seeing[1:]), tmp_path, template="default", max_steps=1)
    assert {one.code for one in caught.value.problems} == {"E-MEDIA-015"}


def test_colours_are_all_there():
    assert len(COLOURS) == 4
