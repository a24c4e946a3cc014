"""HQQ's numbers are those of the published library, packed in as many bits as it says, and gradients pass."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tunesmith.core.errors import UsageError
from tunesmith.models.quantization.hqq import HQQLinear, half_quadratic, pack, quantize_linear_layers, unpack

GOLDEN = Path(__file__).resolve().parents[3] / "assets" / "quantization" / "hqq_0.2.8.safetensors"
BITS = (1, 2, 3, 4, 5, 6, 8)


@pytest.mark.parametrize("bits", BITS)
def test_weights_equal_those_of_the_library(bits: int) -> None:
    held = load_file(GOLDEN)
    q, scales, zeros = half_quadratic(held["weight"], bits)
    assert int(q.max()) < 2**bits
    torch.testing.assert_close(((q - zeros) * scales).view(16, 32), held[f"dequantized_{bits}"], rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("bits", "bytes_each"), [(1, 1 / 8), (2, 1 / 4), (3, 28 / 64), (4, 1 / 2), (5, 1), (6, 1), (8, 1)]
)
def test_numbers_are_packed_and_found_again(bits: int, bytes_each: float) -> None:
    q = torch.randint(2**bits, (64, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    packed = pack(q, bits)
    assert torch.equal(unpack(packed, bits).to(torch.uint8), q)
    assert packed.numel() * packed.element_size() == bytes_each * q.numel()


def test_a_layer_computes_with_its_weight_and_passes_gradients() -> None:
    torch.manual_seed(0)
    layer = HQQLinear(nn.Linear(64, 16), 4, "cpu")
    x = torch.randn(3, 64, requires_grad=True)
    (y := layer(x)).square().sum().backward()
    torch.testing.assert_close(y, x @ layer.weight.T + layer.bias)
    torch.testing.assert_close(x.grad, 2 * y.detach() @ layer.weight)
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


def test_a_remainder_is_refused() -> None:
    model = nn.Sequential(nn.Linear(5, 5))
    model.get_output_embeddings = lambda: None  # type: ignore[assignment]
    with pytest.raises(UsageError) as caught:
        quantize_linear_layers(model, 4, "cpu")
    assert caught.value.problems[0].code == "E-QUANT-007"


def test_the_output_layer_stays() -> None:
    model = nn.ModuleDict({"block": nn.Linear(64, 64), "head": nn.Linear(64, 64)})
    model.get_output_embeddings = lambda: model["head"]  # type: ignore[assignment]
    quantize_linear_layers(model, 8, "cpu")
    assert isinstance(model["block"], HQQLinear)
    assert type(model["head"]) is nn.Linear
