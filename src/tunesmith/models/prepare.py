"""Make a loaded model ready to train: norm precision, a list of its parameters, and its context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesmith.core.log import get_logger
from tunesmith.models.rope import context_of

if TYPE_CHECKING:
    from tunesmith.config.model import ModelConfig

__all__ = ["print_parameters", "upcast_norms", "warn_if_longer"]


def upcast_norms(model: Any, config: ModelConfig) -> None:
    """Hold one-dimensional norm weights in float32 (`upcast_layernorm`). GPT-2's family calls them ln_1, ln_f."""
    if not config.upcast_layernorm:
        return
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 and ("norm" in name.lower() or ".ln_" in name):
            parameter.data = parameter.data.float()


def print_parameters(model: Any, config: ModelConfig) -> None:
    """One line a parameter: name, shape, dtype, device, trained or not (`print_param_status`). Packed weights have the
    shapes that they stand for."""
    if not config.print_param_status:
        return
    from tunesmith.models.quantization.weights import stood_for

    shapes = stood_for(model)
    for name, parameter in model.named_parameters():
        state = "trained" if parameter.requires_grad else "frozen"
        get_logger().info(
            "%s %s %s %s %s",
            name,
            tuple(shapes.get(name, parameter.shape)),
            str(parameter.dtype).removeprefix("torch."),
            parameter.device,
            state,
        )


def warn_if_longer(model: Any, longest: int) -> None:
    """Say it where rows are longer than what the model was made for: such positions it has never seen."""
    context = context_of(model.config)
    if context and longest > context:
        get_logger().warning(
            "the longest row has %s tokens, the model's context is %s: write cutoff_len: %d, or rope_scaling",
            f"{longest:,}",
            f"{context:,}",
            context,
        )
