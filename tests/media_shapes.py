"""Shapes of the tiny models of tests/media_families*.py: what reads text, what sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["EXPERTS", "SIGLIP", "TEXT", "TOWER", "Ids", "Kwargs"]

Kwargs = dict[str, Any]
Ids = Callable[[str], int]

TEXT: Kwargs = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 50_400,
    "max_position_embeddings": 4096,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
TOWER: Kwargs = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}
SIGLIP: Kwargs = {"model_type": "siglip_vision_model", **TOWER}
EXPERTS: Kwargs = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
