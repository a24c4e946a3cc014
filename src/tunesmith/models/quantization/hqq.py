"""HQQ, half-quadratic quantization without data (https://mobiusml.github.io/hqq_blog/): 1, 2, 3, 4, 5, 6 or 8 bits.

A group of 64 weights W shares a step s and a zero z: q = round(W s + z), clipped, stands for (q - z) / s. The zeros
are found so that |W - (q - z) / s| to the power 0.7 is small, which cares less for outliers than the square does.

The library itself is not used: transformers imports it wherever it is installed, and with it torch's compiler, at the
cost of seconds at every start. What this computes equals what the library does.

Shapes: a weight [O, I] is cut into [G, N] with G = 64 and N = O I / 64, as the library's `axis=0`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.core.errors import Problem, UsageError
from tunesmith.models.heads import output_layer
from tunesmith.models.quantization.base import Quantizer

__all__ = ["HQQLinear", "HalfQuadratic", "half_quadratic", "pack", "quantize_linear_layers", "unpack"]

_GROUP = 64
_NORM, _BETA, _STEPS = 0.7, 10.0, 20  # of the published solver
_LARGEST = 2e4  # a scale that half precision holds
_FLAT = 1e-4  # span of a group that is taken for none


class HalfQuadratic(Quantizer):
    def finish(self, model: Any, dtype: str, device: str) -> None:
        assert self.facts.bits is not None
        quantize_linear_layers(model, int(self.facts.bits), device)


def quantize_linear_layers(model: Any, bits: int, device: str) -> None:
    """Put an HQQLinear on `device` in the place of every linear layer but the output layer, one after the other.

    Raises UsageError where a layer cannot be cut into groups.
    """
    head = output_layer(model)
    layers = [(name, one) for name, one in model.named_modules() if type(one) is nn.Linear and one is not head]
    for name, layer in layers:
        if layer.weight.numel() % _GROUP:
            what = f"HQQ quantizes {_GROUP} weights at once, and a layer has a remainder"
            got, fix = str(tuple(layer.weight.shape)), "quantization_method: bnb"
            raise UsageError(Problem("E-QUANT-007", what, name, got, fix))
    for name, layer in layers:
        model.set_submodule(name, HQQLinear(layer, bits, device))


def half_quadratic(weight: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """weight [O, I] -> q [G, N] of uint8, scales and zeros [1, N] in float32; (q - zeros) * scales is near it."""
    groups = weight.float().reshape(_GROUP, -1)
    least, most = groups.amin(0, keepdim=True), groups.amax(0, keepdim=True)
    top, span = 2**bits - 1, most - least
    steps = torch.where(span.abs() <= _FLAT, torch.ones_like(span), top / span).clamp(max=_LARGEST)  # 1 / scale
    zeros = -least * steps
    best = float("inf")
    for _ in range(_STEPS):
        q = (groups * steps + zeros).round().clamp(0, top)
        error = groups - (q - zeros) / steps
        shrunk = _shrink(error)
        zeros = (q - (groups - shrunk) * steps).mean(0, keepdim=True)
        if (now := float(error.abs().mean())) >= best:
            break
        best = now
    q = (groups * steps + zeros).round().clamp(0, top)
    return q.to(torch.uint8), 1 / steps, zeros


def _shrink(error: Tensor) -> Tensor:
    """What minimises |e|^p + beta / 2 (e - error)^2, by the published approximation."""
    size = error.abs()
    return error.sign() * (size - size.pow(_NORM - 1) / _BETA).clamp(min=0)


def _per_byte(bits: int) -> int:
    """Numbers of so many bits that share a byte. Three bits take ten to an int32; five and six a byte each."""
    return {1: 8, 2: 4, 4: 2}.get(bits, 1)


def pack(q: Tensor, bits: int) -> Tensor:
    """q [G, N] of uint8, below 2**bits -> uint8 [G / numbers per byte, N]; three bits -> int32 [7, N]."""
    if bits == 3:
        rows = torch.cat([q, q.new_zeros(-len(q) % 10, q.shape[1])]).int().view(10, -1, q.shape[1])
        return sum((one << 3 * place for place, one in enumerate(rows)), torch.zeros_like(rows[0]))
    rows = q.view(_per_byte(bits), -1, q.shape[1])
    return sum((one << bits * place for place, one in enumerate(rows)), torch.zeros_like(rows[0]))


def unpack(packed: Tensor, bits: int) -> Tensor:
    """The q [G, N] that `pack` was given."""
    count = 10 if bits == 3 else _per_byte(bits)
    rows = [(packed >> bits * place) & (2**bits - 1) for place in range(count)]
    return torch.cat(rows)[:_GROUP]


class _Product(torch.autograd.Function):
    """x W^T + b, that keeps the packed weight for the backward pass and not the whole one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: HQQLinear) -> Tensor:
        ctx.layer = layer
        return nn.functional.linear(x, layer.weight.to(x.dtype), layer.bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ ctx.layer.weight.to(gradient.dtype), None


class HQQLinear(nn.Linear):
    """A frozen linear layer whose weight is made of packed numbers whenever it is asked for.

    It is a Linear for whoever looks (PEFT's adapters do), and has no parameter of that name.
    """

    def __init__(self, layer: nn.Linear, bits: int, device: str) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.bits = layer.in_features, layer.out_features, bits
        q, scales, zeros = half_quadratic(layer.weight.detach().to(device), bits)
        self.packed = nn.Parameter(pack(q, bits), requires_grad=False)
        dtype = layer.weight.dtype
        self.register_buffer("scales", scales.to(dtype))
        self.register_buffer("zeros", zeros.to(dtype))
        bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().to(device), requires_grad=False)
        self.register_parameter("bias", bias)

    @property
    def weight(self) -> Tensor:
        """[O, I], made anew each time."""
        q = unpack(self.packed, self.bits).to(self.scales.dtype)
        return ((q - self.zeros) * self.scales).view(self.out_features, self.in_features)

    def forward(self, input: Tensor) -> Tensor:
        dtype = torch.get_autocast_dtype(input.device.type) if torch.is_autocast_enabled(input.device.type) else None
        found: Tensor = _Product.apply(input if dtype is None else input.to(dtype), self)
        return found
