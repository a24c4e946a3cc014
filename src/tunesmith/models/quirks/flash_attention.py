"""Which flash-attention the authors of a model allow, which transformers keeps in a private attribute of its class.

Asked for another one, transformers takes an allowed one in its place, from the hub where it is not installed.
"""

from __future__ import annotations

from typing import Any

__all__ = ["allows_kernel"]


def allows_kernel(model: Any, attention: str) -> bool:
    """Whether `attention` (an `attn_implementation`) stays what it is in this model."""
    allowed = getattr(model, "_compatible_flash_implementations", None)
    return allowed is None or attention in allowed
