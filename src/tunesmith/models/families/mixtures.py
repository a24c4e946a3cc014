"""What the configs of mixtures of experts call things: names that transformers' types share, in the order in which they
are looked for, and what single types have of their own.

tests/contracts/test_mixtures.py compares what follows from them with the modules of every type.
"""

from __future__ import annotations

from typing import Any

__all__ = ["CHOSEN", "EXPERTS", "MIXTURES", "NESTED", "SWITCHES"]

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""How many experts a layer has to choose from."""
CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "moe_top_k", "top_k_experts")
"""How many of them a token is sent to."""
NESTED = ("ffn_config",)
"""Parts of a config where DBRX has both."""
SWITCHES = ("enable_moe_block", "is_moe")
"""False: a config that names experts, and a model without any (Gemma 4, Doge)."""
MIXTURES: dict[str, dict[str, Any]] = {
    # Half of the layers that config.json counts are dense, and stand in one module with a sparse one.
    "longcat_flash": {"depth": "num_layers", "idle_experts": "zero_expert_num"},
    "zaya": {"idle_experts": 1},
}
