"""Matrix products in floats of eight bits while training (https://arxiv.org/abs/2209.05433), by torchao.

Weights stay in their own type; weights, inputs and gradients are rounded for each product, with a scale for each row.
Under an all-gather in eight bits the scale is one for each tensor, which is what FSDP can send.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tunesmith.config.quantizer_facts import FLOAT8
from tunesmith.core.log import get_logger
from tunesmith.models.heads import output_layer
from tunesmith.models.quantization.available import check_available

__all__ = ["check_float8", "to_float8"]

_MULTIPLE = 16  # of both sizes of a layer, for the kernels


def check_float8(device: str) -> None:
    """Raises MachineError where torchao is missing or the device has no such products."""
    check_available(FLOAT8, device, "fp8: true")


def to_float8(model: Any, *, all_gather: bool = False, emulate: bool = False) -> int:
    """Let linear layers compute in eight bits: all but the output layer, adapters, and those whose sizes are no
    multiples of 16. emulate: round as such a device would, and multiply in the weights' type. Returns how many."""
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    head = output_layer(model)
    converted = 0

    def fits(module: Any, name: str) -> bool:
        nonlocal converted
        sizes = (module.in_features, module.out_features)
        found = module is not head and ".lora_" not in name and not any(size % _MULTIPLE for size in sizes)
        converted += found
        return found

    settings = Float8LinearConfig.from_recipe_name("tensorwise" if all_gather else "rowwise")
    settings = replace(settings, enable_fsdp_float8_all_gather=all_gather, emulate=emulate)
    convert_to_float8_training(model, config=settings, module_filter_fn=fits)
    get_logger().info("fp8: %d linear layers compute in eight bits", converted)
    return converted
