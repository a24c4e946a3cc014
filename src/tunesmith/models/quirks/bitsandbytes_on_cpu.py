"""Layers of bitsandbytes on a CPU: what would give other numbers in evaluation, or lose what belongs to a weight."""

from __future__ import annotations

from typing import Any

__all__ = ["keep_packing", "keep_scales"]


def keep_packing(model: Any) -> None:
    """Leave the weights of 4-bit layers in one order. Where a CPU multiplies bfloat16, a forward without gradient
    packs them anew for a kernel that computes in bfloat16 whatever the run does, and that ends in an assertion where
    a layer's outputs are no multiple of 32."""
    from bitsandbytes.nn import Linear4bit

    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.support_avx512bf16_for_cpu = False


def keep_scales(model: Any) -> None:
    """Only a weight that brings scales changes those of its 8-bit layer. To read a weight, PEFT's DoRA moves it to the
    CPU that it is on and puts the copy into the layer; that has no scales, and the next forward would take these."""
    from bitsandbytes.nn import Linear8bitLt

    for layer in model.modules():
        if isinstance(layer, Linear8bitLt):
            layer.init_8bit_state = _Keeping(layer)
            layer.init_8bit_state()


class _Keeping:
    """Stands for the method on one layer; an object, so that the copy of a layer has one of its own."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer

    def __call__(self) -> None:
        weight, state = self._layer.weight, self._layer.state
        state.CB = weight.data if weight.CB is None else weight.CB
        if weight.SCB is not None:
            state.SCB = weight.SCB
        weight.CB = weight.SCB = None
