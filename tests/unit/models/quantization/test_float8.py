"""Arithmetic in floats of eight bits, emulated: what a GPU does is not run here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tunesmith.core.errors import MachineError
from tunesmith.models.quantization.float8 import check_float8, to_float8


@pytest.mark.parametrize("all_gather", [False, True])
def test_eight_bits_compute_the_same_but_for_rounding(stories: Path, all_gather: bool) -> None:
    from torchao.float8.float8_linear import Float8Linear
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(stories, dtype=torch.bfloat16)
    ids = torch.arange(3, 60)[None]
    expected = model(input_ids=ids, labels=ids).loss.item()
    weights = dict(model.named_parameters())
    # q, k, v and o of 5 layers: the 172 of the others is no multiple of 16
    assert to_float8(model, all_gather=all_gather, emulate=True) == 4 * 5
    layers = [one for one in model.modules() if isinstance(one, Float8Linear)]
    assert len(layers) == 20
    assert all(layer.config.enable_fsdp_float8_all_gather == all_gather for layer in layers)
    if not all_gather:  # else each weight is wrapped for FSDP
        assert all(weights[name] is parameter for name, parameter in model.named_parameters())
    loss = model(input_ids=ids, labels=ids).loss
    assert loss.item() != expected
    assert loss.item() == pytest.approx(expected, rel=0.02)
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_processor_has_none() -> None:
    with pytest.raises(MachineError) as caught:
        check_float8("cpu")
    assert caught.value.problems[0].code == "E-QUANT-005"


def test_an_older_gpu_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    with pytest.raises(MachineError, match=r"8\.9, and this GPU has 8\.0"):
        check_float8("cuda:0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    check_float8("cuda:0")
