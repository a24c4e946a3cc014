"""More families, each in its own way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.media_cases import Case, make_config, part
from tests.media_shapes import SIGLIP, TEXT, TOWER, Ids, Kwargs

__all__ = ["MORE"]


_SQUARE: Kwargs = {"size": {"height": 56, "width": 56}}

# -- Gemma

_GEMMA_HEADS: Kwargs = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 1024}
_GEMMA_NAMED = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}


def _gemma3(token: Ids) -> Any:
    return make_config(
        "Gemma3Config",
        text_config={**TEXT, **_GEMMA_HEADS},
        vision_config=SIGLIP,
        mm_tokens_per_image=4,
        boi_token_index=token("<start_of_image>"),
        eoi_token_index=token("<end_of_image>"),
        image_token_index=token("<image_soft_token>"),
    )


_HEARD = {
    "hidden_size": 32,
    "conf_num_attention_heads": 2,
    "conf_num_hidden_layers": 1,
    "sscp_conv_channel_size": (8, 4),
    "vocab_offset": 50_300,
    "vocab_size": 20,
}


def _gemma3n(token: Ids) -> Any:
    names = {"boi": "<start_of_image>", "eoi": "<end_of_image>", "image": "<image_soft_token>"}
    names |= {"boa": "<start_of_audio>", "eoa": "<end_of_audio>", "audio": "<audio_soft_token>"}
    text = {
        **TEXT,
        "head_dim": 16,
        "num_kv_shared_layers": 0,
        "layer_types": ["sliding_attention", "full_attention"],
        "vocab_size_per_layer_input": 50_300,
        "hidden_size_per_layer_input": 8,
        "laurel_rank": 4,
        "activation_sparsity_pattern": [0.0, 0.0],
        "altup_num_inputs": 2,
    }
    return make_config(
        "Gemma3nConfig",
        text_config=text,
        audio_config=_HEARD,
        audio_soft_tokens_per_image=6,
        **{f"{name}_token_id": token(text) for name, text in names.items()},
    )


_GEMMA4_NAMED = {
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
}


def _gemma4(token: Ids) -> Any:
    text = {
        **TEXT,
        "head_dim": 16,
        "global_head_dim": 16,
        "layer_types": ["sliding_attention", "full_attention"],
        "vocab_size_per_layer_input": 50_400,
        "hidden_size_per_layer_input": 8,
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "position_embedding_size": 64,
    }
    audio = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "subsampling_conv_channels": (128, 4),
        "output_proj_dims": 16,
    }
    return make_config(
        "Gemma4Config",
        text_config=text,
        vision_config=vision,
        audio_config=audio,
        boi_token_id=token("<|image>"),
        eoi_token_id=token("<image|>"),
        image_token_id=token("<|image|>"),
        video_token_id=token("<|video|>"),
        boa_token_id=token("<|audio>"),
        eoa_token_index=token("<audio|>"),
        audio_token_id=token("<|audio|>"),
    )


def _paligemma(token: Ids) -> Any:
    return make_config(
        "PaliGemmaConfig",
        text_config={"model_type": "gemma", **TEXT, "head_dim": 16},
        vision_config={**SIGLIP, "projection_dim": 32},
        projection_dim=32,
        hidden_size=32,
        image_token_index=token("<image>"),
    )


def _first(text: str) -> str:
    """Images before the text, and without what the processor adds to it."""
    places = text.count("<image>")
    return "<image>" * places + text.replace("<image>", "").removeprefix("<|endoftext|>").removesuffix("\n")


_GEMMAS = {
    "gemma3": Case(
        "gemma3",
        "Gemma3Processor",
        _GEMMA_NAMED,
        parts=lambda: {"image_processor": part("Gemma3ImageProcessorPil", **_SQUARE)},
        settings={"image_seq_length": 4},
        config=_gemma3,
        model="Gemma3ForConditionalGeneration",
        feature={"image": "<image_soft_token>"},
        tower=("multi_modal_projector",),
    ),
    "gemma3n": Case(
        "gemma3n",
        "Gemma3nProcessor",
        {
            **_GEMMA_NAMED,
            "boa_token": "<start_of_audio>",
            "eoa_token": "<end_of_audio>",
            "audio_token": "<audio_soft_token>",
        },
        parts=lambda: {
            "image_processor": part("SiglipImageProcessorPil", **_SQUARE),
            "feature_extractor": part("Gemma3nAudioFeatureExtractor"),
        },
        settings={"image_seq_length": 4, "audio_seq_length": 6},
        config=_gemma3n,
        model="Gemma3nForConditionalGeneration",
        feature={"image": "<image_soft_token>", "audio": "<audio_soft_token>"},
        model_package="timm",
        padded=True,
    ),
    "gemma4": Case(
        "gemma4",
        "Gemma4Processor",
        _GEMMA4_NAMED,
        tokens=("<|video|>",),
        parts=lambda: {
            "image_processor": part("Gemma4ImageProcessorPil", max_soft_tokens=70),
            "feature_extractor": part("Gemma4AudioFeatureExtractor"),
        },
        video=lambda: part("Gemma4VideoProcessor"),
        config=_gemma4,
        model="Gemma4ForConditionalGeneration",
        feature={"image": "<|image|>", "audio": "<|audio|>", "video": "<|video|>"},
        counted=False,
    ),
    "paligemma": Case(
        "paligemma",
        "PaliGemmaProcessor",
        {"image_token": "<image>"},
        parts=lambda: {"image_processor": part("SiglipImageProcessorPil", image_seq_length=16, **_SQUARE)},
        config=_paligemma,
        model="PaliGemmaForConditionalGeneration",
        feature={"image": "<image>"},
        told=_first,
    ),
}

# -- Llama 3.2 and 4


def _mllama(token: Ids) -> Any:
    text = {**TEXT, "cross_attention_layers": [1]}
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "attention_heads": 2,
        "image_size": 56,
        "vision_output_dim": 32,
        "intermediate_layers_indices": [0],
        "supported_aspect_ratios": [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]],
    }
    return make_config("MllamaConfig", text_config=text, vision_config=vision, image_token_index=token("<|image|>"))


def _llama4(token: Ids) -> Any:
    text = {
        **TEXT,
        "intermediate_size_mlp": 32,
        "head_dim": 16,
        "num_local_experts": 2,
        "attention_chunk_size": 8192,
    }
    vision = {
        **TOWER,
        "intermediate_size": 64,
        "vision_output_dim": 16,
        "projector_input_dim": 16,
        "projector_output_dim": 16,
    }
    return make_config(
        "Llama4Config",
        text_config=text,
        vision_config=vision,
        boi_token_index=token("<|image_start|>"),
        eoi_token_index=token("<|image_end|>"),
        image_token_index=token("<|patch|>"),
    )


_LLAMA4_TOKENS = ["image", "image_start", "image_end", "patch", "tile_x_separator", "tile_y_separator"]
_LLAMAS = {
    "mllama": Case(
        "mllama",
        "MllamaProcessor",
        tokens=("<|image|>", "<|python_tag|>"),
        parts=lambda: {"image_processor": part("MllamaImageProcessorPil", **_SQUARE)},
        config=_mllama,
        model="MllamaForConditionalGeneration",
        batched=True,
        tower=("gate",),
    ),
    "llama4": Case(
        "llama4",
        "Llama4Processor",
        tokens=tuple(f"<|{name}|>" for name in _LLAMA4_TOKENS),
        parts=lambda: {"image_processor": part("Llama4ImageProcessor", **_SQUARE)},
        config=_llama4,
        model="Llama4ForConditionalGeneration",
        feature={"image": "<|patch|>"},
        torchvision=True,
    ),
}

# -- InternVL, Pixtral, LFM2, SmolVLM


def _internvl(token: Ids) -> Any:
    vision = {**TOWER, "image_size": [56, 56], "patch_size": [14, 14]}
    return make_config(
        "InternVLConfig",
        text_config={"model_type": "qwen2", **TEXT},
        vision_config=vision,
        image_token_id=token("<IMG_CONTEXT>"),
        image_seq_length=4,
    )


def _mistral3(token: Ids) -> Any:
    vision = {"model_type": "pixtral", **TOWER, "image_size": 112, "head_dim": 8}
    return make_config(
        "Mistral3Config",
        text_config={"model_type": "mistral", **TEXT},
        vision_config=vision,
        image_token_index=token("[IMG]"),
        spatial_merge_size=2,
    )


def _pixtral(token: Ids) -> Any:
    vision = {"model_type": "pixtral", **TOWER, "image_size": 112, "head_dim": 8}
    return make_config(
        "LlavaConfig",
        text_config={"model_type": "mistral", **TEXT},
        vision_config=vision,
        image_token_index=token("[IMG]"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )


def _idefics3(config: str) -> Callable[[Ids], Any]:
    def make(token: Ids) -> Any:
        return make_config(
            config,
            text_config={"model_type": "llama", **TEXT},
            vision_config=TOWER,
            image_token_id=token("<image>"),
            scale_factor=2,
        )

    return make


def _lfm2(token: Ids) -> Any:
    vision = {"model_type": "siglip2_vision_model", **TOWER, "patch_size": 16, "num_patches": 16}
    text = {"model_type": "lfm2", **TEXT, "layer_types": ["conv", "full_attention"], "block_ff_dim": 32}
    return make_config(
        "Lfm2VlConfig",
        text_config=text,
        vision_config=vision,
        image_token_id=token("<image>"),
        projector_hidden_size=16,
    )


_ROWS = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
_LFM_ROWS = tuple(f"<|img_row_{row}_col_{column}|>" for row in range(1, 11) for column in range(1, 11))
_IDEFICS = {
    "do_image_splitting": True,
    "size": {"longest_edge": 112},
    "max_image_size": {"longest_edge": 56},
}
_TILED = {
    "internvl": Case(
        "internvl",
        "InternVLProcessor",
        {
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        parts=lambda: {"image_processor": part("GotOcr2ImageProcessorPil", **_SQUARE)},
        video=lambda: part("InternVLVideoProcessor", **_SQUARE),
        settings={"image_seq_length": 4},
        config=_internvl,
        model="InternVLForConditionalGeneration",
        feature={"image": "<IMG_CONTEXT>", "video": "<IMG_CONTEXT>"},
        call={"image": {"crop_to_patches": False}},
        even=True,
    ),
    "mistral3": Case(
        "mistral3",
        "PixtralProcessor",
        tokens=("[IMG]", "[IMG_BREAK]", "[IMG_END]"),
        parts=lambda: {"image_processor": part("PixtralImageProcessorPil", patch_size=14, size={"longest_edge": 112})},
        settings={"patch_size": 14, "spatial_merge_size": 2},
        config=_mistral3,
        model="Mistral3ForConditionalGeneration",
        feature={"image": "[IMG]"},
        torchvision=True,
    ),
    "pixtral": Case(
        "llava",
        "PixtralProcessor",
        tokens=("[IMG]", "[IMG_BREAK]", "[IMG_END]"),
        parts=lambda: {"image_processor": part("PixtralImageProcessorPil", patch_size=14, size={"longest_edge": 112})},
        settings={"patch_size": 14},
        config=_pixtral,
        model="LlavaForConditionalGeneration",
        feature={"image": "[IMG]"},
        torchvision=True,
    ),
    "idefics3": Case(
        "idefics3",
        "Idefics3Processor",
        tokens=("<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *_ROWS),
        parts=lambda: {"image_processor": part("Idefics3ImageProcessorPil", **_IDEFICS)},
        settings={"image_seq_len": 4},
        config=_idefics3("Idefics3Config"),
        model="Idefics3ForConditionalGeneration",
        feature={"image": "<image>"},
    ),
    "smolvlm": Case(
        "smolvlm",
        "SmolVLMProcessor",
        tokens=("<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *_ROWS),
        parts=lambda: {"image_processor": part("SmolVLMImageProcessorPil", **_IDEFICS)},
        video=lambda: part("SmolVLMVideoProcessor", **_IDEFICS),
        settings={"image_seq_len": 4},
        config=_idefics3("SmolVLMConfig"),
        model="SmolVLMForConditionalGeneration",
        feature={"image": "<image>"},
        package="num2words",
    ),
    "lfm2_vl": Case(
        "lfm2_vl",
        "Lfm2VlProcessor",
        {"image_token": "<image>", "image_start_token": "<|image_start|>", "image_end_token": "<|image_end|>"},
        tokens=("<|img_thumbnail|>", *_LFM_ROWS),
        parts=lambda: {
            "image_processor": part(
                "Lfm2VlImageProcessor", tile_size=64, max_tiles=4, max_image_tokens=16, min_image_tokens=4
            )
        },
        config=_lfm2,
        model="Lfm2VlForConditionalGeneration",
        feature={"image": "<image>"},
        torchvision=True,
    ),
}

MORE: dict[str, Case] = {**_GEMMAS, **_LLAMAS, **_TILED}
