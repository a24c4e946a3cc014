"""Types of models (`model_type` of config.json) that read flat batches exactly, with the attention of
`models/attention.py` and nothing else: loss and gradient are those of each sequence alone. `shims.py` has those that
need help, `padded.py` those that are padded.

Tested with the releases in constraints.txt: tests/contracts/test_flat_batches.py derives this list.
"""

from __future__ import annotations

__all__ = ["FLAT", "SEEING"]

_TYPES = """
    afmoe apertus arcee aria_text axk1 beam bitnet cohere cohere2 cohere2_moe cohere_compass_text ctrl cwm dbrx
    deepseek_v2 deepseek_v3 diffllama dots1 ernie4_5 ernie4_5_moe exaone4 exaone_moe flex_olmo flint gemma gemma2
    gemma3_text gemma3n_text gemma4_text gemma4_unified_text glm glm4 glm4_moe glm4_moe_lite gpt-sw3 gpt2
    gpt_bigcode gpt_neox gpt_oss granite granite_swa granitemoe granitemoe_swa granitemoeshared helium hrm_text
    hunyuan_v1_dense hunyuan_v1_moe hy_v3 hyperclovax internlm3 iquestcoder jais2 jetmoe kolibri1 laguna llama
    longcat_flash mellum mimo_v2_flash minicpm3 minimax_m2 ministral ministral3 mistral mixtral modernbert-decoder
    nanochat olmo olmo2 olmo3 olmoe opt persimmon phi phi3 qwen2 qwen3 qwen3_moe seed_oss smollm3 solar_open
    starcoder2 vaultgemma youtu
"""
FLAT = frozenset(_TYPES.split())

_SEEING = """
    ernie4_5_vl_moe glm46v glm4v glm4v_moe glm_ocr granite4_vision idefics3 internvl llava llava_next llava_next_video
    qwen2_5_omni qwen2_5_omni_thinker qwen2_5_vl qwen2_audio qwen2_vl qwen3_omni_moe qwen3_omni_moe_thinker qwen3_vl
    qwen3_vl_moe video_llava
"""
SEEING = frozenset(_SEEING.split())
"""Types of models that see or hear, of which the same is true with media among their tokens: what reads text in them is
of one of the types above, and their code hands on what tells sequences apart. tests/contracts/test_flat_media.py
derives this list."""
