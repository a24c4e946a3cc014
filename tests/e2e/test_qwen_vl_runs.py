"""Runs of Qwen2-VL (and its successors): tiny random models, rows with no picture, one and several, positions of three
axes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForMultimodalLM

import tunesmith
from tests.media_cases import Shelf, media_of_case, tokenizer_of
from tests.media_families import CASES
from tests.tiny_seeing import save_case

SIZES = [(60, 90), (120, 40), (33, 100), (56, 56)]
NUMBERS = (1, 3, 0, 2, 1, 0, 2, 1)
"""Pictures of each row."""
VISION, PROJECTOR, LANGUAGE = "freeze_vision_tower", "freeze_multi_modal_projector", "freeze_language_model"
ALL = {VISION: False, PROJECTOR: False}


def rows(folder: Path) -> Path:
    folder.mkdir()
    found, at = [], 0
    for row, number in enumerate(NUMBERS):
        names = []
        for _ in range(number):
            width, height = SIZES[at % len(SIZES)]
            noise = np.random.default_rng(at).integers(0, 256, (height, width, 3), np.uint8)
            Image.fromarray(noise).save(folder / f"{at}.png")
            names.append(f"{at}.png")
            at += 1
        said = [
            {"role": "user", "content": "<image>" * number + f"What is in row {row}?"},
            {"role": "assistant", "content": f"It has {number} of them."},
        ]
        found.append({"messages": said, "images": names})
    (folder / "rows.json").write_text(json.dumps(found))
    return folder / "rows.json"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """`made("qwen2_vl")`: a model of this type, and rows. Once each."""
    folder = tmp_path_factory.mktemp("qwen_vl")
    data, models = rows(folder / "data"), {}

    def make(name: str) -> tuple[Path, Path]:
        if name not in models:
            models[name] = save_case(name, folder / name)
        return models[name], data

    return make


@pytest.fixture
def train(made: Any, tmp_path: Path, torch_one_thread: None) -> Callable[..., Any]:
    """`train(out, type, key=value ...)`: a run of all parts of such a model -> its folder."""

    def run(out: str, name: str = "qwen2_vl", **changes: Any) -> Path:
        model, data = made(name)
        keys = {
            "model_name_or_path": str(model),
            "template": "qwen3_vl_nothink" if name == "qwen3_vl" else "qwen2_vl",
            "finetuning_type": "full",
            "dataset": str(data),
            "output_dir": str(tmp_path / out),
            "per_device_train_batch_size": 2,
            "max_steps": 3,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "save_strategy": "no",
            "use_cpu": True,
            **ALL,
        }
        return tunesmith.train(keys | changes).output_dir

    return run


def losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "trainer_log.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_flat_batches_are_padded_ones(train: Any, name: str) -> None:
    flat, padded = train("flat", name), train("padded", name, fast_path="off")
    assert json.loads((flat / "plan.json").read_text())["batches"] == "flat"
    assert json.loads((padded / "plan.json").read_text())["batches"] == "padded"
    assert losses(flat) == pytest.approx(losses(padded), rel=1e-5)
    assert json.loads((flat / "self_proof.json").read_text())["holds"]


@pytest.mark.slow
def test_a_pack_of_all_rows_is_a_batch_of_them(train: Any) -> None:
    keys = {"cutoff_len": 4096, "max_steps": 2}
    packed = train("packed", packing=True, per_device_train_batch_size=1, **keys)
    padded = train("padded", per_device_train_batch_size=len(NUMBERS), fast_path="off", **keys)
    assert losses(packed) == pytest.approx(losses(padded), rel=1e-5)


@pytest.mark.slow
def test_a_run_goes_on_to_the_bit(train: Any) -> None:
    often = {"save_strategy": "steps", "save_steps": 2, "lr_scheduler_type": "constant"}
    whole = train("whole", max_steps=4, **often)
    train("parts", max_steps=2, **often)
    parts = train("parts", max_steps=4, dataloader_num_workers=2, **often)
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, parts))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_lora_is_put_on_the_language_model_alone(train: Any, made: Any) -> None:
    folder = train("lora", finetuning_type="lora", lora_target="all", **dict.fromkeys(ALL, True))
    names = load_file(folder / "adapter_model.safetensors").keys()
    assert names
    assert all(".language_model." in name for name in names)
    seen = train("seen", finetuning_type="lora", lora_target="all", **ALL, **{LANGUAGE: True})
    names = load_file(seen / "adapter_model.safetensors").keys()
    assert names
    assert all(".visual." in name for name in names)


PARTS = {
    "vision": {VISION: False, PROJECTOR: True, LANGUAGE: True},
    "projector": {VISION: True, PROJECTOR: False, LANGUAGE: True},
    "language": {VISION: True, PROJECTOR: True, LANGUAGE: False},
}


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_what_is_not_frozen_changes(train: Any, made: Any, part: str) -> None:
    folder = train("out", max_steps=1, **PARTS[part])
    before, after = (
        AutoModelForMultimodalLM.from_pretrained(one).state_dict() for one in (made("qwen2_vl")[0], folder)
    )
    changed = {_part(name) for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {part}


def _part(name: str) -> str:
    if ".visual." not in name:
        return "language"
    return "projector" if ".merger." in name else "vision"


@pytest.mark.slow
def test_the_saved_folder_is_read_by_transformers(train: Any, made: Any) -> None:
    """Its model has the loss that the run evaluates, its processor the ids."""
    from tunesmith.config import load_config
    from tunesmith.media.limits import MediaLimits
    from tunesmith.models.media import load_media
    from tunesmith.models.tokenizer import load_tokenizer

    folder = train("out", max_steps=1)
    config = load_config({"model_name_or_path": str(folder)}, verb="chat")
    media = load_media(config.model, MediaLimits(), load_tokenizer(config.model))
    shelf, case = Shelf(), CASES["qwen2_vl"]
    pictures = [shelf.image(*size) for size in SIZES]
    original = media_of_case(case, shelf, tokenizer=tokenizer_of(case))
    text = "".join(f"<|vision_start|><|image_pad|><|vision_end|>{number}" for number in range(len(pictures)))
    images = [shelf.read(picture) for picture in pictures]
    found, wanted = (one.processor(text=[text], images=images, return_tensors="pt") for one in (media, original))
    assert torch.equal(found["input_ids"], wanted["input_ids"])
    assert torch.equal(found["pixel_values"], wanted["pixel_values"])
    model = AutoModelForMultimodalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        assert model(**found).logits.isfinite().all()
