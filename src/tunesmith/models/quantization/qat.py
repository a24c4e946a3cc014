"""Training weights through the rounding that they will have (QAT, https://arxiv.org/abs/1712.05877), by torchao.

The forward pass rounds the weights of the linear layers (all but the output layer) to integers and back; the gradient
passes as if it had not. What is trained stays whole, and is saved so; `save_quantized` writes the rounded model beside.

    int4   symmetric, a scale for every 32 weights of a row
    int8   symmetric, a scale for every row
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith.core.errors import Problem, UsageError
from tunesmith.core.log import get_logger
from tunesmith.models.heads import output_layer

__all__ = ["fake_quantize", "save_quantized", "scheme"]

_GROUP = 32


def scheme(kind: str) -> Any:
    """torchao's config of what `kind` (int4, int8) rounds to. torchao keeps such integers in a byte each."""
    import torch
    from torchao.quantization import IntxWeightOnlyConfig
    from torchao.quantization.granularity import PerAxis, PerGroup

    kinds = {"int4": (torch.int4, PerGroup(_GROUP)), "int8": (torch.int8, PerAxis(0))}
    dtype, granularity = kinds[kind]
    return IntxWeightOnlyConfig(weight_dtype=dtype, granularity=granularity)


def fake_quantize(model: Any, kind: str) -> None:
    """Let every linear layer but the output layer round its weight in its forward pass. Weights stay the same objects.

    Raises UsageError where a row cannot be cut into groups.
    """
    import torch
    from torchao.quantization import quantize_
    from torchao.quantization.qat import QATConfig

    head = output_layer(model)
    layers = {name: one for name, one in model.named_modules() if isinstance(one, torch.nn.Linear) and one is not head}
    odd = next((name for name, one in layers.items() if kind == "int4" and one.in_features % _GROUP), None)
    if odd is not None:
        what = f"qat: int4 gives a scale to {_GROUP} weights of a row, and a layer has rows with a remainder"
        raise UsageError(Problem("E-QUANT-007", what, odd, f"{layers[odd].in_features} weights", "qat: int8"))
    quantize_(model, QATConfig(scheme(kind), step="prepare"), filter_fn=lambda module, name: name in layers)
    get_logger().info("qat: %d linear layers are rounded to %s in every forward pass", len(layers), kind)


def save_quantized(folder: Path, target: Path, kind: str, tokenizer: Any) -> Path:
    """The model that was trained into `folder`, rounded and packed, as a folder that plain transformers loads."""
    from transformers import AutoModelForCausalLM, TorchAoConfig

    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=TorchAoConfig(scheme(kind)))
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    get_logger().info("qat: the weights in %s are in %s, as the forward pass rounded them", kind, target)
    return target
