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
_MORE: dict[str, dict[str, Any]] = {
    "gemma3n_text": {
        "num_kv_shared_layers": 0,
        "laurel_rank": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": {"head_dim": 8, "ffn_hidden_size": 48, "expert_ffn_hidden_size": 16, "zero_expert_num": 1},
}


def tiny_config(model_type: str) -> Any:
    """A config of this type whose model takes milliseconds. Raises what the config's class raises."""
    from transformers import CONFIG_MAPPING

    kind = CONFIG_MAPPING[model_type]
    defaults = kind().to_dict()
    values = {name: value for name, value in _SMALL.items() if name in defaults}
    if "qk_rope_head_dim" in defaults:  # latent attention: its heads have parts of their own
        values.pop("head_dim", None)
        values["num_key_value_heads"] = 4
    values |= _MORE.get(model_type, {})
    if types := values.get("layer_types") or list(dict.fromkeys(defaults.get("layer_types") or ())):
        if "full_attention" in types and "sliding_window" in defaults:
            types = list(dict.fromkeys([*types, "sliding_attention"]))
        values["layer_types"] = types if len(types) > 1 else types * 2
        values |= dict.fromkeys(
            values.keys() & {"num_hidden_layers", "n_layer", "num_layers"}, len(values["layer_types"])
        )
    return kind(**values)


def tiny_model(model_type: str, attention: str) -> Any:
    """A causal language model of this type in float32, with weights that do not depend on the machine's state."""
    import torch
    from transformers import AutoModelForCausalLM

    config = tiny_config(model_type)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=torch.float32).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:  # the usual scale is so small that attention would hardly matter
            torch.nn.init.normal_(parameter, std=0.08)
    return model
