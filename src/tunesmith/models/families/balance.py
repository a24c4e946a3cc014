"""Types of mixtures of experts (`model_type` of config.json) whose routers tell how they send their tokens, so that an
even load can be asked for (`moe_aux_loss_coef`): transformers has the same loss of them. Others route in a way that is
kept even otherwise (DeepSeek V3 by a bias), or do not tell.

tests/contracts/test_balance.py compares each with transformers.
"""

from __future__ import annotations

__all__ = ["BALANCED"]

_TYPES = """
    dbrx ernie4_5_moe flex_olmo gpt_oss granitemoe granitemoe_swa granitemoehybrid granitemoeshared jamba jetmoe laguna
    mellum minimax minimax_m2 minimax_m3_vl_text mixtral olmoe phimoe qwen2_moe qwen3_5_moe_text qwen3_moe qwen3_next
    qwen4_exp_text
"""
BALANCED = frozenset(_TYPES.split())
