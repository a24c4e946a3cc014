"""Checkpoints that are quantized already: adapters train on them, and all weights where these are made whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tunesmith
from tests.quantized_checkpoints import MAKERS, make_gguf
from tunesmith.core.errors import MissingInputError, UsageError

pytestmark = pytest.mark.slow

PACKED = ("bnb4", "torchao")


@pytest.fixture(params=MAKERS)
def checkpoint(request: pytest.FixtureRequest, stories: Path, tmp_path: Path) -> tuple[str, Path]:
    return request.param, MAKERS[request.param](stories, tmp_path / "base")


def losses(result: Any) -> list[float]:
    lines = (result.output_dir / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


def test_adapters_learn_on_it_and_are_merged_where_it_is_whole(
    train: Callable[..., Any], checkpoint: tuple[str, Path], tmp_path: Path
) -> None:
    name, folder = checkpoint
    base = {"model_name_or_path": str(folder)}
    result = train(**base, finetuning_type="lora", max_steps=10, learning_rate=5e-3)
    assert losses(result)[0] < 4.0  # the model's own weights: random ones have 6.2
    assert losses(result)[-1] < losses(result)[0] - 0.7
    assert name in str(result.plan.quantization)
    adapter = {"adapter_name_or_path": str(result.output_dir), "template": "default"}
    with tunesmith.chat({**base, **adapter, "use_cpu": True}) as conversation:
        assert isinstance(conversation.ask("Who are you?", max_new_tokens=3), str)
    if name in PACKED:
        with pytest.raises(UsageError) as caught:
            tunesmith.export_model({**base, **adapter, "export_dir": str(tmp_path / "merged")})
        assert caught.value.problems[0].code == "E-QUANT-008"
        return
    merged = tunesmith.export_model({**base, **adapter, "export_dir": str(tmp_path / "merged")})
    assert "quantization_config" not in json.loads((merged / "config.json").read_text(encoding="utf-8"))


def test_all_weights_train_where_it_is_whole(train: Callable[..., Any], checkpoint: tuple[str, Path]) -> None:
    from transformers import AutoModelForCausalLM

    name, folder = checkpoint
    if name in PACKED:
        with pytest.raises(UsageError) as caught:
            train(model_name_or_path=str(folder))
        assert caught.value.problems[0].code == "E-QUANT-002"
        return
    result = train(model_name_or_path=str(folder), max_steps=10)
    assert losses(result)[-1] < losses(result)[0] - 0.7
    saved = AutoModelForCausalLM.from_pretrained(result.output_dir)
    assert {parameter.dtype for parameter in saved.parameters()} == {torch.float32}
    assert getattr(saved.config, "quantization_config", None) is None


def test_a_gguf_file_without_its_tokenizer(train: Callable[..., Any], stories: Path, tmp_path: Path) -> None:
    folder = make_gguf(stories, tmp_path / "base")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(MissingInputError, match="beside the GGUF file"):
        train(model_name_or_path=str(folder))
