"""Quantization of the base weights while they are loaded, and of trained weights at the end."""

from __future__ import annotations

from typing import Literal

from tunesmith.config.fields import section, works


@section
class QuantizationConfig:
    """Library, bits and flavour."""

    quantization_method: Literal[
        "bnb", "bitsandbytes", "hqq", "torchao", "eetq", "gptq", "awq", "aqlm", "quanto", "mxfp4", "fp8"
    ] = works("bnb")
    """Library that quantizes: bnb, hqq, torchao or eetq. The others name kinds of checkpoints, found by themselves."""
    quantization_bit: int | None = works(None)
    """Bits per weight of the base: bnb 4, 8; hqq 1-6, 8; torchao 4, 8; eetq 8. Left out: not quantized."""
    quantization_type: Literal["nf4", "fp4", "fp8"] = works("nf4")
    """Four-bit data type of bitsandbytes: nf4 or fp4; with torchao and 8 bits, fp8 takes floats, not integers."""
    double_quantization: bool = works(True)
    """Quantize the scales of bitsandbytes' 4-bit weights too: 0.4 bits less per weight."""
    bnb_4bit_quant_storage: Literal["auto", "uint8", "bfloat16", "float16", "float32"] = works("auto")
    """Type of the tensors that hold bitsandbytes' 4-bit weights: auto is uint8, and under FSDP the type of the run."""
    quantization_device_map: Literal["auto"] | None = works(None)
    """auto: spread a 4-bit model over all devices; only to generate."""
    qat: Literal["int4", "int8"] | None = works(None)
    """Train weights through their rounding to so many bits (QAT), and save them quantized too; full and freeze."""
