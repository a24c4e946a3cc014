"""Quantisation of the base weights while they are loaded."""

from __future__ import annotations

from typing import Literal

from tunesmith.config.fields import later, section

_WHAT = "training on quantised weights"


@section
class QuantizationConfig:
    """Library, bits and flavour of on-the-fly quantisation."""

    quantization_method: Literal["bnb", "gptq", "awq", "aqlm", "quanto", "eetq", "hqq", "mxfp4", "fp8"] = later(
        "bnb", _WHAT
    )
    """Library that quantises; checkpoints that are already quantised name theirs themselves."""
    quantization_bit: int | None = later(None, _WHAT)
    """Bits per weight; left out means no quantisation."""
    quantization_type: Literal["fp4", "nf4"] = later("nf4", _WHAT)
    """Four-bit data type of bitsandbytes."""
    double_quantization: bool = later(True, _WHAT)
    """Quantise the constants of the quantisation too."""
    quantization_device_map: Literal["auto"] | None = later(None, _WHAT)
    """Spread a four-bit model over several devices; for inference only."""
