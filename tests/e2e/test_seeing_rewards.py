"""Reward models that see: gemma3 has a class for sequences in transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForSequenceClassification, AutoProcessor

import tunesmith
from tests.media_cases import Shelf, media_of_case, processor_of, tokenizer_of
from tests.media_checks import chat_template
from tests.media_families import CASES
from tests.seeing import colour_pairs
from tests.tiny_seeing import save_case
from tunesmith.core.errors import DataError, UsageError


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny Gemma 3 with its processor, and pairs about pictures."""
    folder, case = tmp_path_factory.mktemp("rewards"), CASES["gemma3"]
    model = save_case("gemma3", folder / "gemma3")
    processor_of(case, tokenizer_of(case)).save_pretrained(model)
    (model / "chat_template.jinja").write_text(chat_template(media_of_case(case, Shelf())))
    return model, colour_pairs(folder / "data", 8)


def keys(model: Path, rows: Path, out: Path) -> dict[str, object]:
    return {
        "model_name_or_path": str(model),
        "stage": "rm",
        "do_train": True,
        "finetuning_type": "full",
        "freeze_vision_tower": False,
        "freeze_multi_modal_projector": False,
        "dataset": str(rows),
        "eval_dataset": str(rows),
        "do_eval": True,
        "output_dir": str(out),
        "per_device_train_batch_size": 4,
        "max_steps": 2,
        "save_strategy": "no",
        "use_cpu": True,
    }


@pytest.mark.slow
def test_plain_transformers_reads_the_rewards(seeing, tmp_path: Path, torch_one_thread: None) -> None:
    found = tunesmith.train(keys(*seeing, tmp_path))
    assert json.loads((tmp_path / "self_proof.json").read_text())["holds"], "as transformers computes it, with pictures"
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    processor = AutoProcessor.from_pretrained(tmp_path)
    rewards: dict[str, list[float]] = {"chosen": [], "rejected": []}
    for row in json.loads(seeing[1].read_text()):
        for name, told in rewards.items():
            parts = [{"type": "image"}, {"type": "text", "text": row["messages"][0]["content"].removeprefix("<image>")}]
            chat = [{"role": "user", "content": parts}, row[name]]
            text = processor.apply_chat_template([chat], tokenize=False)
            picture = Image.open(seeing[1].parent / row["images"][0])
            inputs = processor(text=text, images=[picture], add_special_tokens=False, return_tensors="pt")
            with torch.no_grad():
                told.append(float(model(**inputs).logits[0, 0]))
    for name, told in rewards.items():
        assert found.metrics[f"eval_rewards/{name}"] == pytest.approx(sum(told) / len(told), abs=1e-5)
    assert len(set(rewards["chosen"])) > 1
    with pytest.raises(DataError) as caught:  # the engine of rewards reads text alone
        tunesmith.score(
            {"model_name_or_path": str(tmp_path), "dataset": str(seeing[1]), "output_dir": str(tmp_path / "s")}
        )
    assert caught.value.code == "E-MEDIA-015"


@pytest.mark.slow
def test_a_type_that_has_none_is_refused(seeing, seeing_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        tunesmith.train(keys(seeing_model, seeing[1], tmp_path))
    assert caught.value.code == "E-MODEL-036"
    assert "gemma3" in str(caught.value.problems[0].fix)
