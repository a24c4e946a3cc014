"""Types of models (`model_type` of config.json) to which layers can be added that change nothing: copies of others
whose outputs into the residual stream are zero.

Tested with the releases in constraints.txt: tests/contracts/test_expanded_blocks.py derives this list.
"""

from __future__ import annotations

__all__ = ["BLOCK_OUTPUTS", "EXPANDS"]

_OUTPUTS = """
    c_proj dense dense_4h_to_h down_proj down_proj_bias fc2 fc_out linear_2 o_proj out_proj output_linear w2 wo
"""
BLOCK_OUTPUTS = frozenset(_OUTPUTS.split())
"""Parts of names of weights that lead from attention, or from a feed-forward network, into the residual stream."""

_TYPES = """
    apertus arcee aria_text axk1 axk2 bailing_hybrid beam biogpt bitnet bloom codegen cohere cohere2 cohere2_moe
    cohere_compass_text cwm dbrx deepseek_v2 deepseek_v3 deepseek_v32 dots1 ernie4_5 exaone4 exaone_moe falcon
    falcon_h1 falcon_mamba flex_olmo flint gemma gemma2 gemma3_text glm glm4 glm4_moe glm4_moe_lite gpt-sw3 gpt2
    gpt_bigcode gpt_neo gpt_neox gpt_oss gptj granite granite_swa granitemoe granitemoe_swa granitemoehybrid
    granitemoeshared helium hunyuan_v1_dense hunyuan_v1_moe hy_v3 hyperclovax inkling_text internlm3 iquestcoder
    jais2 kimi_linear kolibri1 laguna lfm2 lfm3 llama mamba mamba2 mellum mimo_v2_flash minimax_m2
    minimax_m3_vl_text ministral ministral3 mistral mixtral mpt nanochat nemotron nemotron_h olmo olmo2 olmo3
    olmo_hybrid olmoe opt persimmon phi phi3 phimoe qwen2 qwen2_moe qwen3 qwen3_5_moe_text qwen3_5_text qwen3_moe
    qwen3_next qwen4_exp_text seed_oss smollm3 solar_open stablelm starcoder2 vaultgemma xglm youtu zamba
"""
EXPANDS = frozenset(_TYPES.split())
