"""Tiny models of any type that transformers knows, with random weights: every kind of layer, windows that bite."""

from __future__ import annotations

from typing import Any

# Sizes under all the names that configs have for them. Windows and blocks are shorter than the tests' sequences.
_SMALL: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), 97),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads", "num_heads"), 4),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), 64),
    **dict.fromkeys(("sliding_window", "window_size", "attention_window", "attention_chunk_size"), 5),
    **dict.fromkeys(("index_topk", "keep_window_size", "index_block_size", "local_attention"), 4),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk"), 2),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "first_k_dense_replace", "index_topk_blocks"), 1),
    **dict.fromkeys(
        ("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "head_dim", "hidden_size_per_layer_input"), 8
    ),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank", "moe_intermediate_size", "index_head_dim"), 16),
    **dict.fromkeys(("attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "dropout"), 0.0),
    **dict.fromkeys(("activation_dropout", "layerdrop", "embedding_dropout", "hidden_dropout_prob"), 0.0),
    "attention_probs_dropout_prob": 0.0,
    "num_key_value_heads": 2,
    "rotary_dim": 4,
    "index_n_heads": 2,
    "use_sliding_window": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 16, "mamba_chunk_size": 4}
_DELTA = {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4}
_KDA = {"linear_head_dim": 8, "linear_num_heads": 4, "num_experts_per_token": 2, "num_expert_group": 1}
_TWICE = {"attention_hidden_size": 64, "attention_head_dim": 16, "num_key_value_heads": 4}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_LINEAR, _FULL = "linear_attention", "full_attention"
# What a type needs to be small, to have all its kinds of layers, or to do what only long sequences show.
_MORE: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {**_KDA, "layer_types": [_LINEAR, _FULL], "mlp_layer_types": ["dense", "sparse"]},
    "bamba": {**_MAMBA2, "attn_layer_indices": [1]},
    "cohere_compass_text": {
        "layer_types": [_FULL, "sliding_attention"],
        "rope_parameters": {_FULL: _ROPE, "sliding_attention": _ROPE},
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
        "max_seq_len": 64,
    },
    "dots3_note_text": {
        "swa_num_attention_heads": 2,
        "swa_num_key_value_heads": 2,
        "swa_q_lora_rank": 16,
        "swa_kv_lora_rank": 16,
        "swa_head_dim": 16,
        "swa_qk_nope_head_dim": 8,
        "swa_v_head_dim": 8,
        "head_dim": 16,
    },
    "falcon_h1": {**_MAMBA2, "mamba_d_ssm": 64},
    "gemma3n_text": {
        "num_kv_shared_layers": 0,
        "laurel_rank": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "inkling_text": {
        "log_scaling_n_floor": 3,
        "rel_extent": 8,
        "d_rel": 4,
        "sliding_window_size": 5,
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 2,
        "swa_head_dim": 8,
    },
    "granitemoehybrid": {**_MAMBA2, "layer_types": [_LINEAR, _FULL], "position_embedding_type": "rope"},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 4},
    "kimi_linear": {**_KDA, "layer_types": [_LINEAR, _FULL], "mlp_layer_types": ["dense", "sparse"]},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "llama4_text": {"layer_types": ["chunked_attention", _FULL], "no_rope_layers": [1, 0], "floor_scale": 3},
    "longcat_flash": {"head_dim": 8, "ffn_hidden_size": 48, "expert_ffn_hidden_size": 16, "zero_expert_num": 1},
    "mamba2": {"num_heads": 8, "n_groups": 2, "state_size": 16, "chunk_size": 4},
    "mpt": {"max_seq_len": 64},
    "inkling2_text": {
        "log_scaling_n_floor": 3,
        "rel_extent": 8,
        "d_rel": 4,
        "sliding_window_size": 5,
        "unpadded_vocab_size": 97,
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 2,
        "swa_head_dim": 8,
        "layer_types": ["hybrid_sliding", "hybrid"],
        "n_layers_per_attn_res_block": 2,
    },
    "minimax_m3_vl_text": {"layer_types": ["minimax_m3_sparse", _FULL]},
    "minimax": {"layer_types": [_LINEAR, _FULL], "block_size": 4, "linear_attn_alpha_factor": 1.5},
    "nemotron_h": {"mamba_num_heads": 8, "mamba_head_dim": 8, "ssm_state_size": 16, "n_groups": 2, "chunk_size": 4},
    "olmo_hybrid": {**_DELTA, "linear_num_value_heads": 2},
    "phimoe": {"sliding_window": 5},
    "qwen4_exp_text": {
        **_DELTA,
        "layer_types": [_LINEAR, "indexed_attention"],
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 4,
        "indexer_compress_ratio": 2,
        "hc_count": 2,
        "hc_lowrank": 8,
        "ple_layer_ids": [1],
        "ple_embed_dim": 16,
        "heads_per_ngram": 2,
        "ngram_vocab_size_base": 97,
        "make_ngram_vocab_size_divisible_by": 1,
        "split_ngram_parts": 1,
        "shared_expert_intermediate_size": 16,
    },
    "qwen3_5_moe_text": _DELTA,
    "qwen3_5_text": _DELTA,
    "qwen3_next": _DELTA,
    "recurrent_gemma": {"block_types": ["recurrent", "attention"], "lru_width": 32, "attention_window_size": 5},
    "zamba": {"layers_block_type": [_LINEAR, "hybrid", "hybrid"], "mamba_dt_rank": 4, "num_hidden_layers": 3} | _TWICE,
    "zamba2": {"layers_block_type": [_LINEAR, "hybrid"], "mamba_headdim": 8, "chunk_size": 4} | _TWICE,
    "zaya": {"layer_types": ["hybrid", "hybrid_sliding"], "num_experts_per_tok": 1, "router_hidden_size": 8},
}


def tiny_config(model_type: str, **changes: Any) -> Any:
    """A config of this type whose model takes milliseconds. Raises what the config's class raises."""
    from transformers import CONFIG_MAPPING

    kind = CONFIG_MAPPING[model_type]
    defaults = kind().to_dict()
    values = {name: value for name, value in _SMALL.items() if name in defaults}
    if "qk_rope_head_dim" in defaults:  # latent attention: its heads have parts of their own
        values.pop("head_dim", None)
        values["num_key_value_heads"] = 4
    more = _MORE.get(model_type, {})
    values |= more
    if types := more.get("layer_types") or list(dict.fromkeys(defaults.get("layer_types") or ())):
        if "layer_types" not in more and "full_attention" in types and "sliding_window" in defaults:
            types = list(dict.fromkeys([*types, "sliding_attention"]))
        values["layer_types"] = types if len(types) > 1 else types * 2
        values |= dict.fromkeys(
            values.keys() & {"num_hidden_layers", "n_layer", "num_layers"}, len(values["layer_types"])
        )
    return kind(**values | changes)


def tiny_model(model_type: str, attention: str | None, **changes: Any) -> Any:
    """A causal language model of this type in float32, with weights that do not depend on the machine's state.
    `attention` None: what transformers takes by itself."""
    import torch
    from transformers import AutoModelForCausalLM

    config = tiny_config(model_type, **changes)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=torch.float32).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:  # the usual scale is so small that attention would hardly matter
            torch.nn.init.normal_(parameter, std=0.08)
    return model
