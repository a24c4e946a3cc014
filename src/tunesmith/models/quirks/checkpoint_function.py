"""The function that computes a layer again in backward: transformers takes arguments for it, not another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["wrap_checkpoint_function"]


def wrap_checkpoint_function(model: Any, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> int:
    """Put `wrap(function)` in the place of the function of every layer of a model whose checkpointing is on. Returns
    how many there are."""
    wrapped: dict[int, Callable[..., Any]] = {}
    found = 0
    for module in model.modules():
        function = getattr(module, "_gradient_checkpointing_func", None)
        if function is not None:
            if id(function) not in wrapped:
                wrapped[id(function)] = wrap(function)
            module._gradient_checkpointing_func = wrapped[id(function)]
            found += 1
    return found
