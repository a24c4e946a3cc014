"""What differs from the defaults of `Family`, by `model_type`. Data only: no code, no imports of models."""

from __future__ import annotations

from typing import Any

from tunesmith.models.families.balance import BALANCED
from tunesmith.models.families.blocks import BLOCK_OUTPUTS, EXPANDS
from tunesmith.models.families.depths import DEPTHS
from tunesmith.models.families.flat import FLAT, SEEING
from tunesmith.models.families.mixtures import MIXTURES
from tunesmith.models.families.packing import PACKS
from tunesmith.models.families.padded import PADDED
from tunesmith.models.families.shims import SHIMS

__all__ = [
    "BALANCED",
    "BLOCK_OUTPUTS",
    "DEPTHS",
    "EXCEPTIONS",
    "EXPANDS",
    "FLAT",
    "MIXTURES",
    "PACKS",
    "PADDED",
    "SEEING",
    "SHIMS",
]

EXCEPTIONS: dict[str, dict[str, Any]] = {
    # Mamba's out_proj is read as a raw weight by its kernel: PEFT refuses to wrap it.
    "falcon_h1": {"adapter_exclude": ("out_proj",), "head_scale": ("lm_head_multiplier", 1)},
    "mamba": {"adapter_exclude": ("out_proj",)},
    "mamba2": {"adapter_exclude": ("out_proj",)},
    # The router is a subclass of Linear with a forward of its own.
    "llama4_text": {"adapter_exclude": ("router",)},
    # What the forward of the language model does to its logits: (key of config.json, power).
    "granite": {"head_scale": ("logits_scaling", -1)},
    "granite_swa": {"head_scale": ("logits_scaling", -1)},
    "granitemoe": {"head_scale": ("logits_scaling", -1)},
    "granitemoe_swa": {"head_scale": ("logits_scaling", -1)},
    "granitemoeshared": {"head_scale": ("logits_scaling", -1)},
    "granitemoehybrid": {"head_scale": ("logits_scaling", -1)},
    "minicpm3": {"head_scale": ("logits_scaling", -1)},
    "cohere": {"head_scale": ("logit_scale", 1)},
    "cohere2": {"head_scale": ("logit_scale", 1)},
    "cohere2_moe": {"head_scale": ("logit_scale", 1)},
}
