"""Types of models (`model_type` of config.json) that keep sequences of one row apart by their positions alone.

Tested with the releases in constraints.txt: tests/contracts/test_packed_rows.py derives this list.
"""

from __future__ import annotations

__all__ = ["PACKS"]

_TYPES = """
    apertus arcee aria_text axk1 beam bitnet codegen cohere cohere2 cohere2_moe cohere_compass_text ctrl cwm
    deepseek_v2 deepseek_v3 diffllama dots1 ernie4_5 ernie4_5_moe exaone4 exaone_moe flex_olmo flint gemma gemma2
    gemma3_text gemma3n_text gemma4_text gemma4_unified_text glm glm4 glm4_moe glm4_moe_lite gpt-sw3 gpt2
    gpt_bigcode gpt_neo gpt_neox gpt_neox_japanese gptj granite granite_swa granitemoe granitemoe_swa
    granitemoeshared helium hrm_text hunyuan_v1_dense hunyuan_v1_moe hy_v3 hyperclovax internlm3 iquestcoder jais2
    jetmoe kolibri1 laguna llama longcat_flash mellum mimo_v2_flash minicpm3 minimax_m2 ministral ministral3 mistral
    mixtral modernbert-decoder nanochat nemotron olmo olmo2 olmo3 olmoe persimmon phi phi3 phimoe qwen2 qwen2_moe
    qwen3 qwen3_moe seed_oss smollm3 solar_open stablelm starcoder2 vaultgemma youtu
"""
PACKS = frozenset(_TYPES.split())
