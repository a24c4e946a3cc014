"""EETQ: weights as integers of 8 bits, with kernels for CUDA that come from the hub."""

from __future__ import annotations

from typing import Any

from tunesmith.models.quantization.base import Quantizer

__all__ = ["Eetq"]


class Eetq(Quantizer):
    def arguments(self, dtype: str) -> dict[str, Any]:
        from transformers import EetqConfig

        return {"quantization_config": EetqConfig("int8")}
