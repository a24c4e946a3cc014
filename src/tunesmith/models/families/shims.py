"""Types of models that read flat batches exactly with some help, and which (facts of `Family`, by `model_type`).

Tested with the releases in constraints.txt: tests/contracts/test_flat_batches.py derives this list.
"""

from __future__ import annotations

from typing import Any

__all__ = ["BY_HELP", "SHIMS"]


def _per_sequence(modules: str, **more: Any) -> dict[str, Any]:
    return {"per_sequence": tuple(modules.split()), **more}


# A state that runs along the row: recurrent mixers and short convolutions. Attention beside them reads flat.
_MIXERS = {
    "bailing_hybrid": _per_sequence("BailingHybridDeltaAttention"),
    "bamba": _per_sequence("BambaMixer"),
    "falcon_h1": _per_sequence("FalconH1Mixer"),
    "granitemoehybrid": _per_sequence("GraniteMoeHybridMambaLayer"),
    "jamba": _per_sequence("JambaMambaMixer"),
    "kimi_linear": _per_sequence("KimiLinearDeltaAttention"),
    "lfm2": _per_sequence("Lfm2ShortConv"),
    "lfm2_moe": _per_sequence("Lfm2MoeShortConv"),
    "lfm3": _per_sequence("Lfm3ShortConv"),
    "minimax": _per_sequence("MiniMaxLightningAttention"),
    "nemotron_h": _per_sequence("NemotronHMamba2Mixer"),
    "olmo_hybrid": _per_sequence("OlmoHybridGatedDeltaNet"),
    "qwen3_5_moe_text": _per_sequence("Qwen3_5MoeGatedDeltaNet"),
    "qwen3_5_text": _per_sequence("Qwen3_5GatedDeltaNet"),
    "qwen3_next": _per_sequence("Qwen3NextGatedDeltaNet"),
    "zamba": _per_sequence("ZambaMambaMixer"),
    "zamba2": _per_sequence("Zamba2MambaMixer"),
    "zaya": _per_sequence("ZayaCCAProjection"),
    # No attention at all: `eager` is a name without effect.
    "falcon_mamba": _per_sequence("FalconMambaMixer", attention="eager"),
    "mamba": _per_sequence("MambaMixer", attention="eager"),
    "mamba2": _per_sequence("Mamba2Mixer", attention="eager"),
    "rwkv": _per_sequence("RwkvSelfAttention RwkvFeedForward", attention="eager"),
}

# Layers that do not hand the borders on to their attention.
_UNTOLD = {
    "biogpt": _per_sequence("BioGptAttention"),
    "nemotron": _per_sequence("NemotronAttention"),
    "recurrent_gemma": _per_sequence("RecurrentGemmaRecurrentBlock RecurrentGemmaAttention"),
    "stablelm": _per_sequence("StableLmAttention"),
}

# An attention of the model's own, or one that needs its mask: it gets its part of the mask of the whole row.
_OWN_ATTENTION = {
    "axk2": _per_sequence("AXK2Attention", attention="sdpa"),
    "bloom": _per_sequence("BloomAttention", attention="eager"),
    "codegen": _per_sequence("CodeGenAttention", attention="eager"),
    "deepseek_v32": _per_sequence("DeepseekV32Attention", attention="sdpa"),
    "deepseek_v4": _per_sequence("DeepseekV4Attention", attention="eager"),
    "doge": _per_sequence("DogeAttention", attention="sdpa"),
    "dots3_note_text": _per_sequence("Dots3NoteTextAttention", attention="sdpa"),
    "falcon": _per_sequence("FalconAttention", attention="sdpa"),
    "gpt_neo": _per_sequence("GPTNeoSelfAttention", attention="eager"),
    "gpt_neox_japanese": _per_sequence("GPTNeoXJapaneseAttention", attention="eager"),
    "gptj": _per_sequence("GPTJAttention", attention="eager"),
    "inkling2_text": _per_sequence(
        "Inkling2ShortConvolution Inkling2DynamicShortConvolution Inkling2SlidingAttention Inkling2FullAttention",
        attention="eager",
    ),
    "inkling_text": _per_sequence("InklingShortConvolution InklingAttention", attention="eager"),
    "minimax_m3_vl_text": _per_sequence("MiniMaxM3VLAttention", attention="sdpa"),
    "mpt": _per_sequence("MptAttention", attention="eager"),
    "openai-gpt": _per_sequence("Attention", attention="eager"),
    "qwen4_exp_text": _per_sequence(
        "Qwen4ExpTextGatedDeltaNet Qwen4ExpTextAttention Qwen4ExpTextPLELayer", attention="sdpa"
    ),
    "xglm": _per_sequence("XGLMAttention", attention="eager"),
}

# A window or chunks that transformers writes into the mask only.
_LIMITS = {
    # Its temperature counts positions from the beginning of the row.
    "llama4_text": _per_sequence("Llama4TextAttention", mask_only="attention_chunk_size"),
    "phimoe": {"mask_only": "sliding_window"},
    "qwen2_moe": {"mask_only": "sliding_window"},
}

BY_HELP: dict[str, dict[str, dict[str, Any]]] = {
    "recurrent mixers and short convolutions run for each sequence": _MIXERS,
    "attention runs for each sequence, as its layers do not hand the borders on": _UNTOLD,
    "the model's own attention runs for each sequence, with its part of a mask of T x T": _OWN_ATTENTION,
    "a window or chunks that stand in the mask only are told to the attention": _LIMITS,
}
"""What is done: the types and their facts."""
SHIMS = {model_type: facts for types in BY_HELP.values() for model_type, facts in types.items()}
