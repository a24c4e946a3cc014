"""Base models with quantized weights: one file and one line for each library that quantizes while a model is loaded.

What each of them needs and allows stands in `config.quantizer_facts`; what a checkpoint is quantized with already is
recognised by `saved`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.core.registry import Registry

if TYPE_CHECKING:
    from tunesmith.models.quantization.base import Quantizer

__all__ = ["QUANTIZERS"]

_HERE = "tunesmith.models.quantization"

QUANTIZERS: Registry[type[Quantizer]] = Registry("library of quantization", code="E-QUANT-001")
QUANTIZERS.add("bitsandbytes", f"{_HERE}.bitsandbytes:BitsAndBytes")
QUANTIZERS.add("hqq", f"{_HERE}.hqq:HalfQuadratic")
QUANTIZERS.add("torchao", f"{_HERE}.torchao:TorchAo")
QUANTIZERS.add("eetq", f"{_HERE}.eetq:Eetq")
