"""`logits_to_keep` for models whose class does not take it, as some of those that see or hear do not: their output
layer gets the hidden states of chosen positions alone.
"""

from __future__ import annotations

import functools
import inspect
from types import MethodType
from typing import Any

from torch import Tensor

from tunesmith.core.errors import MachineError, Problem

__all__ = ["take_logits_to_keep"]

_NAME = "logits_to_keep"


def take_logits_to_keep(model: Any) -> None:
    """From here on `model(..., logits_to_keep=)` gives what transformers means by it: the logits of so many last
    positions (0: of all), or of those in an index [K]. Raises MachineError (E-MODEL-008) for a text model that lacks
    it, and for a model without an output layer."""
    if _NAME in inspect.signature(model.forward).parameters:
        return
    if model.config.get_text_config() is model.config or model.get_output_embeddings() is None:
        what = "this architecture cannot restrict its output layer to chosen positions"
        fix = "use a transformers release in which its forward() takes logits_to_keep"
        raise MachineError(Problem("E-MODEL-008", what, got=type(model).__name__, fix=fix))
    plain = model.forward

    @functools.wraps(type(model).forward)
    def forward(self: Any, *arguments: Any, logits_to_keep: int | Tensor = 0, **inputs: Any) -> Any:
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        hook = self.get_output_embeddings().register_forward_pre_hook(lambda _, given: (given[0][:, kept], *given[1:]))
        try:
            return plain(*arguments, **inputs)
        finally:
            hook.remove()

    model.forward = MethodType(forward, model)
