"""Types of models (`model_type` of config.json) of which a layer can compute a part of the tokens (`models/depths.py`):
flat and padded batches give what the mathematics says, written out by hand.

Tested with the releases in constraints.txt: tests/contracts/test_depths.py derives this list.
"""

from __future__ import annotations

__all__ = ["DEPTHS"]

_TYPES = """
    afmoe apertus arcee aria_text axk1 bitnet cohere cohere2 cohere2_moe cohere_compass_text ctrl cwm dbrx
    deepseek_v2 deepseek_v3 diffllama dots1 ernie4_5 ernie4_5_moe exaone4 exaone_moe flex_olmo flint gemma gemma2
    gemma3_text gemma4_unified_text glm glm4 glm4_moe glm4_moe_lite gpt-sw3 gpt2 gpt_bigcode gpt_neox gpt_oss
    granite granite_swa granitemoe granitemoe_swa granitemoeshared helium hunyuan_v1_dense hunyuan_v1_moe hy_v3
    hyperclovax internlm3 iquestcoder jais2 jetmoe kolibri1 laguna llama mellum mimo_v2_flash minicpm3 minimax_m2
    ministral ministral3 mistral mixtral nanochat olmo olmo2 olmo3 olmoe opt persimmon phi phi3 qwen2 qwen3
    qwen3_moe seed_oss smollm3 solar_open starcoder2 vaultgemma youtu
"""
DEPTHS = frozenset(_TYPES.split())
