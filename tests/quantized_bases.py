"""Models that are quantized while they are loaded, without this project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

__all__ = ["plain_base"]


def plain_base(stories: Path, kind: str, dtype: torch.dtype = torch.float32) -> Any:
    """The base, quantized by transformers and the library alone; HQQ, which has none here, by our layers."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TorchAoConfig

    arguments: dict[str, Any] = {"dtype": dtype}
    if kind.startswith("bnb4"):
        arguments["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="fp4" if kind.endswith("fp4") else "nf4",
            bnb_4bit_use_double_quant=not kind.endswith("fp4"),
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_quant_storage=torch.bfloat16 if kind.endswith("bf16") else torch.uint8,
        )
    elif kind == "bnb8":
        arguments["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
    elif kind.startswith("torchao"):
        from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

        made = Float8WeightOnlyConfig() if kind.endswith("fp8") else Int8WeightOnlyConfig()
        arguments["quantization_config"] = TorchAoConfig(made)
    model = AutoModelForCausalLM.from_pretrained(stories, **arguments)
    if kind.startswith("bnb4"):  # its kernel for CPUs with bfloat16 wants outputs in multiples of 32, and here are 172
        for layer in model.modules():
            if hasattr(layer, "support_avx512bf16_for_cpu"):
                layer.support_avx512bf16_for_cpu = False
    if kind.startswith("hqq"):
        from tunesmith.models.quantization.hqq import quantize_linear_layers

        quantize_linear_layers(model, int(kind[3:]), "cpu")
    return model
