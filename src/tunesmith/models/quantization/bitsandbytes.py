"""bitsandbytes: 4 bits (NF4 or FP4, https://arxiv.org/abs/2305.14314) and 8 bits (https://arxiv.org/abs/2208.07339)."""

from __future__ import annotations

from typing import Any

from tunesmith.models.quantization.base import Quantizer
from tunesmith.models.quirks.bitsandbytes_on_cpu import keep_packing, keep_scales

__all__ = ["BitsAndBytes", "mend_layers"]


class BitsAndBytes(Quantizer):
    def arguments(self, dtype: str) -> dict[str, Any]:
        from transformers import BitsAndBytesConfig

        if self.facts.bits == 8:
            return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
        storage = self.config.bnb_4bit_quant_storage
        if storage == "auto":  # FSDP flattens the weights of a layer, and those have to be floats of one type
            storage = dtype if self.sharded else "uint8"
        settings = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_quant_type=self.config.quantization_type,
            bnb_4bit_use_double_quant=self.config.double_quantization,
            bnb_4bit_quant_storage=storage,
        )
        return {"quantization_config": settings}

    def finish(self, model: Any, dtype: str, device: str) -> None:
        mend_layers(model)


def mend_layers(model: Any) -> None:
    """What layers of bitsandbytes need here, whoever made them."""
    keep_packing(model)
    keep_scales(model)
