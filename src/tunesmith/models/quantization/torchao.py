"""torchao: weights as integers of 4 or 8 bits, or as floats of 8 bits; the arithmetic is that of the run."""

from __future__ import annotations

from typing import Any

from tunesmith.models.quantization.base import Quantizer

__all__ = ["TorchAo"]


class TorchAo(Quantizer):
    def arguments(self, dtype: str) -> dict[str, Any]:
        from torchao.quantization import Float8WeightOnlyConfig, Int4WeightOnlyConfig, Int8WeightOnlyConfig
        from transformers import TorchAoConfig

        kinds = {
            "torchao_int4": Int4WeightOnlyConfig,
            "torchao_int8": Int8WeightOnlyConfig,
            "torchao_fp8": Float8WeightOnlyConfig,
        }
        return {"quantization_config": TorchAoConfig(kinds[self.facts.name]())}
