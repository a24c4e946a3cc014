"""What differs from the defaults of `Family`, by `model_type`. Data only: no code, no imports of models."""

from __future__ import annotations

from typing import Any

from tunesmith.models.families.packing import PACKS

__all__ = ["EXCEPTIONS", "PACKS"]

EXCEPTIONS: dict[str, dict[str, Any]] = {
    # Mamba's out_proj is read as a raw weight by its kernel: PEFT refuses to wrap it.
    "falcon_h1": {"adapter_exclude": ("out_proj",)},
    "mamba": {"adapter_exclude": ("out_proj",)},
    "mamba2": {"adapter_exclude": ("out_proj",)},
    # The router is a subclass of Linear with a forward of its own.
    "llama4_text": {"adapter_exclude": ("router",)},
}
