"""What quantized weights are made of: the tensors that hold them, and the shapes that they stand for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from tunesmith.models.quantization.hqq import HQQLinear

__all__ = ["Held", "dequantized", "packed_names", "parts_of", "quantized_share", "stood_for", "stored_bytes"]


def stood_for(model: Any) -> dict[str, torch.Size]:
    """Names of packed parameters -> the shapes of the weights that they stand for. Others are what they seem."""
    found = {}
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        for own, parameter in module.named_parameters(recurse=False):
            if (state := getattr(parameter, "quant_state", None)) is not None:  # bitsandbytes, 4 bits
                found[prefix + own] = torch.Size(state.shape)
            elif isinstance(module, HQQLinear) and own == "packed":
                found[prefix + own] = torch.Size((module.out_features, module.in_features))
    return found


def parts_of(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Every tensor that the parameters of a model are made of, by name: plain ones as they are, and of quantized ones
    the packed numbers with their scales, zeros and tables."""
    seen: set[int] = set()
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        for own, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:  # tied, as in the model's own list
                continue
            seen.add(id(parameter))
            state = getattr(parameter, "quant_state", None)
            if state is None:
                yield from _tensors(prefix + own, parameter)
            else:  # the same bytes in whatever type
                yield prefix + own, parameter.detach().view(-1).view(torch.uint8).view(-1, 1)
                yield from _tensors(f"{prefix}{own}.state", state.as_dict(packed=False))
        if isinstance(module, HQQLinear):
            yield from ((prefix + own, tensor) for own, tensor in module.named_buffers())
        scales = getattr(getattr(module, "state", None), "SCB", None)  # bitsandbytes, 8 bits, once it computes
        if scales is None:
            scales = getattr(getattr(module, "weight", None), "SCB", None)
        if scales is not None and type(module).__module__.startswith("bitsandbytes"):
            yield f"{prefix}SCB", scales


def _tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Mapping):
        for key in sorted(value):
            yield from _tensors(f"{name}.{key}", value[key])
    elif isinstance(value, Tensor) and hasattr(type(value), "__tensor_flatten__"):  # torchao
        for key in value.__tensor_flatten__()[0]:
            yield from _tensors(f"{name}.{key}", getattr(value, key))
    elif isinstance(value, Tensor):
        yield name, value


class Held:
    """Parameters that a model stands for, and those of them that are quantized."""

    def __init__(self, model: Any) -> None:
        shapes = stood_for(model)
        self.total = self.quantized = 0
        packed = packed_names(model)
        for name, parameter in model.named_parameters():
            size = shapes[name].numel() if name in shapes else parameter.numel()
            self.total += size
            self.quantized += size if name in packed else 0


def packed_names(model: Any) -> set[str]:
    """Names of the quantized parameters. Some are floats by their type (`bnb_4bit_quant_storage`): they are bits in a
    tensor of floats, which are not even finite."""
    found = set(stood_for(model))
    return found | {name for name, parameter in model.named_parameters() if _is_packed(parameter)}


def _is_packed(parameter: Tensor) -> bool:
    plain = parameter.is_floating_point() and parameter.element_size() > 1
    return not plain or hasattr(type(parameter), "__tensor_flatten__")


def dequantized(layer: Any) -> Tensor | None:
    """What the numbers of a quantized linear layer stand for [O, I]; None for one that is not quantized."""
    if isinstance(layer, HQQLinear):
        return layer.weight
    if not _is_packed(layer.weight):
        return None
    from peft.utils.integrations import dequantize_module_weight

    found: Tensor = dequantize_module_weight(layer)
    return found.detach()


def quantized_share(model: Any) -> float:
    """Share of a model's parameters that are quantized, 0 to 1."""
    held = Held(model)
    return held.quantized / held.total


def stored_bytes(model: Any) -> int:
    """Bytes that the weights take, with all that belongs to quantized ones."""
    return sum(tensor.numel() * tensor.element_size() for _, tensor in parts_of(model))
