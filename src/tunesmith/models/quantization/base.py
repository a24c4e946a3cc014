"""The contract of a quantizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesmith.config.quantization import QuantizationConfig
    from tunesmith.config.quantizer_facts import QuantizerFacts

__all__ = ["Quantizer"]


class Quantizer:
    """Quantizes the linear layers of a model while it is loaded, all but its output layer, as the field does."""

    def __init__(self, config: QuantizationConfig, facts: QuantizerFacts, sharded: bool = False) -> None:
        """`sharded`: FSDP gives each process a part of every weight."""
        self.config, self.facts, self.sharded = config, facts, sharded

    def arguments(self, dtype: str) -> dict[str, Any]:
        """What transformers' `from_pretrained` gets. `dtype`: of the arithmetic and of what is not quantized."""
        return {}

    def finish(self, model: Any, dtype: str, device: str) -> None:
        """What is left to do once the model is loaded: nothing, where transformers has done it."""
