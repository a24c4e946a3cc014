"""Shadow: a small model of its own beside the base. Its hidden states go into each block of the base, as far as the two
differ, and each block's output moves them on.

PEFT has both models. Here is the loss of the small one by itself, with the base's output layer, which joins that of
the base with `auxiliary_loss_weight`: PEFT adds it to losses that it knows only.
"""

from __future__ import annotations

from typing import Any

from tunesmith.models.loss_forward import LossForward

__all__ = ["make_ready"]


def make_ready(model: Any, keep_dtype: bool) -> None:
    """`model` is PEFT's, with such an adapter: it trains in float32, and by both losses."""
    if not keep_dtype:
        for weight in model.parameters():
            if weight.requires_grad:
                weight.data = weight.data.float()
    name = model.active_adapter
    hidden: dict[str, Any] = {}

    def note(_: Any, __: Any, output: Any) -> None:
        hidden["states"] = output

    model.base_model.shadow_projection[name].register_forward_hook(note)  # from the small model to the base's width
    if weight := model.peft_config[name].auxiliary_loss_weight:
        LossForward.within(model).second = weight, lambda: hidden["states"]
