"""Baichuan 2 and Qwen written out: what their published descriptions compute, with the names of their checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, normalize, silu, softmax

VOCABULARY, HIDDEN, HEADS, LAYERS, WIDE = 61, 32, 4, 2, 48
BASE, EPSILON = 10000.0, 1e-6

BAICHUAN2: dict[str, Any] = {
    "model_type": "baichuan",
    "architectures": ["BaichuanForCausalLM"],
    "auto_map": {"AutoModelForCausalLM": "modeling_baichuan.BaichuanForCausalLM"},
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": WIDE,
    "hidden_act": "silu",
    "max_position_embeddings": 64,
    "model_max_length": 64,
    "rms_norm_eps": EPSILON,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
QWEN: dict[str, Any] = {
    "model_type": "qwen",
    "architectures": ["QWenLMHeadModel"],
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 2 * WIDE,
    "kv_channels": HIDDEN // HEADS,
    "layer_norm_epsilon": EPSILON,
    "max_position_embeddings": 64,
    "seq_length": 32,
    "no_bias": True,
    "rotary_emb_base": BASE,
    "rotary_pct": 1.0,
    "scale_attn_weights": True,
    "tie_word_embeddings": False,
    "use_dynamic_ntk": True,
    "use_logn_attn": True,
}


def random_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    drawn = {name: torch.randn(shape, generator=generator) * 0.2 for name, shape in shapes.items()}
    return {
        name: one + 1 if len(shapes[name]) == 1 and not name.endswith("bias") else one for name, one in drawn.items()
    }


def baichuan2_weights() -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (VOCABULARY, HIDDEN),
    }
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        shapes |= {
            at + "self_attn.W_pack.weight": (3 * HIDDEN, HIDDEN),
            at + "self_attn.o_proj.weight": (HIDDEN, HIDDEN),
            at + "mlp.gate_proj.weight": (WIDE, HIDDEN),
            at + "mlp.up_proj.weight": (WIDE, HIDDEN),
            at + "mlp.down_proj.weight": (HIDDEN, WIDE),
            at + "input_layernorm.weight": (HIDDEN,),
            at + "post_attention_layernorm.weight": (HIDDEN,),
        }
    return random_weights(shapes)


def qwen_weights() -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (VOCABULARY, HIDDEN),
        "transformer.ln_f.weight": (HIDDEN,),
        "lm_head.weight": (VOCABULARY, HIDDEN),
    }
    for layer in range(LAYERS):
        at = f"transformer.h.{layer}."
        shapes |= {
            at + "attn.c_attn.weight": (3 * HIDDEN, HIDDEN),
            at + "attn.c_attn.bias": (3 * HIDDEN,),
            at + "attn.c_proj.weight": (HIDDEN, HIDDEN),
            at + "mlp.w1.weight": (WIDE, HIDDEN),
            at + "mlp.w2.weight": (WIDE, HIDDEN),
            at + "mlp.c_proj.weight": (HIDDEN, WIDE),
            at + "ln_1.weight": (HIDDEN,),
            at + "ln_2.weight": (HIDDEN,),
        }
    return random_weights(shapes)


def norm(x: Tensor, weight: Tensor) -> Tensor:
    return weight * x / (x.pow(2).mean(-1, keepdim=True) + EPSILON).sqrt()


def turned(x: Tensor) -> Tensor:
    """Rotary positions for x [heads, T, size]: pairs are (i, i + size / 2)."""
    length, size = x.shape[1:]
    angles = torch.outer(torch.arange(length).float(), BASE ** (-torch.arange(0, size, 2) / size))
    cos, sin = torch.cat([angles.cos()] * 2, -1), torch.cat([angles.sin()] * 2, -1)
    half = torch.cat([-x[..., size // 2 :], x[..., : size // 2]], -1)
    return x * cos + half * sin


def attention(joined: Tensor) -> Tensor:
    """Causal attention of joined queries, keys and values [T, 3 H]; returns [T, H]."""
    length = len(joined)
    query, key, value = (part.view(length, HEADS, -1).transpose(0, 1) for part in joined.split(HIDDEN, dim=-1))
    scores = turned(query) @ turned(key).transpose(1, 2) / (HIDDEN // HEADS) ** 0.5
    scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), float("-inf"))
    return (softmax(scores, -1) @ value).transpose(0, 1).reshape(length, HIDDEN)


def baichuan2_logits(weights: Mapping[str, Tensor], ids: Tensor) -> Tensor:
    """[T] -> [T, V]"""
    x = weights["model.embed_tokens.weight"][ids]
    for layer in range(LAYERS):
        at = {name.split(".", 3)[3]: one for name, one in weights.items() if name.startswith(f"model.layers.{layer}.")}
        packed = linear(norm(x, at["input_layernorm.weight"]), at["self_attn.W_pack.weight"])
        x = x + linear(attention(packed), at["self_attn.o_proj.weight"])
        y = norm(x, at["post_attention_layernorm.weight"])
        wide = silu(linear(y, at["mlp.gate_proj.weight"])) * linear(y, at["mlp.up_proj.weight"])
        x = x + linear(wide, at["mlp.down_proj.weight"])
    return linear(norm(x, weights["model.norm.weight"]), normalize(weights["lm_head.weight"]))


def qwen_logits(weights: Mapping[str, Tensor], ids: Tensor) -> Tensor:
    """[T] -> [T, V]"""
    x = weights["transformer.wte.weight"][ids]
    for layer in range(LAYERS):
        at = {name.split(".", 3)[3]: one for name, one in weights.items() if name.startswith(f"transformer.h.{layer}.")}
        packed = linear(norm(x, at["ln_1.weight"]), at["attn.c_attn.weight"], at["attn.c_attn.bias"])
        x = x + linear(attention(packed), at["attn.c_proj.weight"], at.get("attn.c_proj.bias"))
        y = norm(x, at["ln_2.weight"])
        one, two = (linear(y, at[f"mlp.{name}.weight"], at.get(f"mlp.{name}.bias")) for name in ("w1", "w2"))
        x = x + linear(one * silu(two), at["mlp.c_proj.weight"], at.get("mlp.c_proj.bias"))
    return linear(norm(x, weights["transformer.ln_f.weight"]), weights["lm_head.weight"])
