"""Weights that were trained through their rounding are saved rounded too, and compute what they did in training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tunesmith.core.errors import MachineError, UsageError

pytestmark = pytest.mark.slow


def losses(result: Any) -> list[float]:
    lines = (result.output_dir / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


@pytest.mark.parametrize("finetuning_type", ["full", "freeze"])
def test_what_is_saved_computes_what_was_trained(
    train: Callable[..., Any], trainers: list[Any], finetuning_type: str
) -> None:
    from transformers import AutoModelForCausalLM

    result = train(finetuning_type=finetuning_type, qat="int8", max_steps=10)
    assert losses(result)[-1] < losses(result)[0] - 0.7
    ids = torch.arange(3, 60)[None]
    with torch.no_grad():
        trained = trainers[0].model.eval()(input_ids=ids).logits
        saved = AutoModelForCausalLM.from_pretrained(result.output_dir / "quantized")(input_ids=ids).logits
        whole = AutoModelForCausalLM.from_pretrained(result.output_dir)(input_ids=ids).logits
    torch.testing.assert_close(saved, trained, rtol=0, atol=1e-5)
    assert (whole - trained).abs().max() > 1e-3  # the rounding
    stored = (result.output_dir / "quantized" / "model.safetensors").stat().st_size
    assert stored < 0.45 * (result.output_dir / "model.safetensors").stat().st_size


def test_four_bits_of_groups(stories: Path) -> None:
    """Scale and rounding by hand: symmetric, 32 weights of a row, -8 to 7."""
    from tunesmith.models.quantization.qat import fake_quantize

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 3, bias=False))
    model.get_output_embeddings = lambda: None  # type: ignore[assignment]
    weight = model[0].weight
    fake_quantize(model, "int4")
    assert model[0].weight is weight
    groups = weight.detach().view(3, 2, 32)
    scales = groups.abs().amax(-1, keepdim=True) / 7.5
    rounded = ((groups / scales).round().clamp(-8, 7) * scales).view(3, 64)
    found = model(torch.eye(64)).T
    torch.testing.assert_close(found, rounded, rtol=0, atol=1e-6)
    found.sum().backward()
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0


def test_rows_with_a_remainder_are_refused(train: Callable[..., Any]) -> None:
    with pytest.raises(UsageError) as caught:
        train(qat="int4", max_steps=1)  # stories260K has rows of 172
    assert caught.value.problems[0].code == "E-QUANT-007"


def test_arithmetic_in_eight_bits_is_refused_here(train: Callable[..., Any]) -> None:
    with pytest.raises(MachineError) as caught:
        train(fp8=True, bf16=True)
    assert caught.value.problems[0].code == "E-QUANT-005"
