"""Families whose images are grids of patches, beside Qwen-VL's, and those that hear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.media_cases import Case, make_config, part
from tests.media_shapes import TEXT, Ids, Kwargs

__all__ = ["GRIDS"]


_EYE: Kwargs = {
    "depth": 2,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_heads": 2,
    "patch_size": 14,
    "image_size": 56,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 32,
}
_SMALL = {"shortest_edge": 28 * 28 * 4, "longest_edge": 28 * 28 * 40}
_SMALL_FILM = {"shortest_edge": 28 * 28 * 4, "longest_edge": 28 * 28 * 80}

# -- GLM-V

_GLM_TOKENS = ("begin_of_image", "end_of_image", "image", "begin_of_video", "end_of_video", "video")


def _glm(config: str, text: Kwargs) -> Callable[[Ids], Any]:
    def make(token: Ids) -> Any:
        ids = {
            "image_token_id": token("<|image|>"),
            "video_token_id": token("<|video|>"),
            "image_start_token_id": token("<|begin_of_image|>"),
            "image_end_token_id": token("<|end_of_image|>"),
            "video_start_token_id": token("<|begin_of_video|>"),
            "video_end_token_id": token("<|end_of_video|>"),
        }
        return make_config(config, vision_config=_EYE, text_config={**TEXT, **text}, **ids)

    return make


_GLM_ROPE: Kwargs = {
    "rope_parameters": {
        "rope_type": "default",
        "mrope_section": [2, 1, 1],
        "rope_theta": 1e4,
        "partial_rotary_factor": 0.5,
    }
}
_GLM_MOE: Kwargs = {
    **_GLM_ROPE,
    "moe_intermediate_size": 16,
    "n_routed_experts": 2,
    "num_experts_per_tok": 1,
    "first_k_dense_replace": 1,
}


def _glm_case(kind: str, processor: str, images: str, films: str, make: Callable[[Ids], Any], model: str) -> Case:
    return Case(
        kind,
        processor,
        tokens=tuple(f"<|{name}|>" for name in _GLM_TOKENS),
        parts=lambda: {"image_processor": part(images, size=_SMALL)},
        video=lambda: part(films, size=_SMALL_FILM),
        config=make,
        model=model,
        feature={"image": "<|image|>", "video": "<|image|>"},
    )


_GLMS = {
    "glm4v": _glm_case(
        "glm4v",
        "Glm4vProcessor",
        "Glm4vImageProcessorPil",
        "Glm4vVideoProcessor",
        _glm("Glm4vConfig", _GLM_ROPE),
        "Glm4vForConditionalGeneration",
    ),
    "glm4v_moe": _glm_case(
        "glm4v_moe",
        "Glm4vProcessor",
        "Glm4vImageProcessorPil",
        "Glm4vVideoProcessor",
        _glm("Glm4vMoeConfig", _GLM_MOE),
        "Glm4vMoeForConditionalGeneration",
    ),
    "glm46v": _glm_case(
        "glm46v",
        "Glm46VProcessor",
        "Glm46VImageProcessorPil",
        "Glm46VVideoProcessor",
        _glm("Glm46VConfig", {"model_type": "glm4v_text", **_GLM_ROPE}),
        "Glm46VForConditionalGeneration",
    ),
    "glm_ocr": _glm_case(
        "glm_ocr",
        "Glm46VProcessor",
        "Glm46VImageProcessorPil",
        "Glm46VVideoProcessor",
        _glm("GlmOcrConfig", _GLM_ROPE),
        "GlmOcrForConditionalGeneration",
    ),
}

# -- ERNIE, MiniCPM-V

_ERNIE_NAMED = {
    "image_token": "<|IMAGE_PLACEHOLDER|>",
    "image_start_token": "<|IMAGE_START|>",
    "image_end_token": "<|IMAGE_END|>",
    "video_token": "<|VIDEO_PLACEHOLDER|>",
    "video_start_token": "<|VIDEO_START|>",
    "video_end_token": "<|VIDEO_END|>",
}


def _ernie(token: Ids) -> Any:
    text = {
        **TEXT,
        "moe_intermediate_size": [16, 16],
        "moe_k": 1,
        "moe_num_experts": 2,
        "moe_num_shared_experts": 1,
        "mlp_layer_types": ["dense", "sparse"],
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 4]},
    }
    vision = {**_EYE, "intermediate_size": 16}
    ids = {f"{name}_id": token(text) for name, text in _ERNIE_NAMED.items()}
    return make_config("Ernie4_5_VLMoeConfig", text_config=text, vision_config=vision, **ids)


def _minicpm(token: Ids) -> Any:
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 112,
        "patch_size": 14,
        "insert_layer_id": 0,
    }
    text = {
        "model_type": "qwen3_5_text",
        **TEXT,
        "layer_types": ["linear_attention", "full_attention"],
        "head_dim": 16,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
    }
    return make_config(
        "MiniCPMV4_6Config",
        text_config=text,
        vision_config=vision,
        insert_layer_id=0,
        image_size=112,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
    )


_OTHERS = {
    "ernie4_5_vl_moe": Case(
        "ernie4_5_vl_moe",
        "Ernie4_5_VLMoeProcessor",
        _ERNIE_NAMED,
        parts=lambda: {"image_processor": part("Ernie4_5_VLMoeImageProcessorPil", size=_SMALL)},
        video=lambda: part("Ernie4_5_VLMoeVideoProcessor", size=_SMALL_FILM, draw_on_frames=False),
        config=_ernie,
        model="Ernie4_5_VLMoeForConditionalGeneration",
        feature={"image": "<|IMAGE_PLACEHOLDER|>", "video": "<|VIDEO_PLACEHOLDER|>"},
    ),
    "minicpmv4_6": Case(
        "minicpmv4_6",
        "MiniCPMV4_6Processor",
        {
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "image_start_token": "<image>",
            "image_end_token": "</image>",
            "slice_start_token": "<slice>",
            "slice_end_token": "</slice>",
            "image_id_start_token": "<image_id>",
            "image_id_end_token": "</image_id>",
        },
        parts=lambda: {"image_processor": part("MiniCPMV4_6ImageProcessorPil", scale_resolution=112)},
        video=lambda: part("MiniCPMV4_6VideoProcessor", scale_resolution=112),
        config=_minicpm,
        model="MiniCPMV4_6ForConditionalGeneration",
        feature={"image": "<|image_pad|>", "video": "<|video_pad|>"},
    ),
}

# -- with ears

_EAR: Kwargs = {
    "num_mel_bins": 16,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "d_model": 16,
    "max_source_positions": 150,
}


def _whisper() -> Any:
    return part("WhisperFeatureExtractor", feature_size=16, chunk_length=3)


def _qwen2_audio(token: Ids) -> Any:
    return make_config(
        "Qwen2AudioConfig",
        text_config={"model_type": "qwen2", **TEXT},
        audio_config=_EAR,
        audio_token_index=token("<|AUDIO|>"),
    )


_MROPE: Kwargs = {"rope_type": "default", "type": "mrope", "mrope_section": [2, 3, 3], "rope_theta": 10_000.0}
_MROPE3: Kwargs = {
    "rope_type": "default",
    "mrope_section": [2, 3, 3],
    "mrope_interleaved": True,
    "rope_theta": 10_000.0,
}


def _omni(token: Ids) -> Any:
    return make_config(
        "Qwen2_5OmniThinkerConfig",
        text_config={**TEXT, "rope_parameters": _MROPE},
        vision_config={**_EYE, "fullatt_block_indexes": [1]},
        audio_config={**_EAR, "n_window": 10, "output_dim": 32},
        audio_token_index=token("<|AUDIO|>"),
        image_token_index=token("<|IMAGE|>"),
        video_token_index=token("<|VIDEO|>"),
        audio_start_token_id=token("<|audio_bos|>"),
        audio_end_token_id=token("<|audio_eos|>"),
        vision_start_token_id=token("<|vision_bos|>"),
        vision_end_token_id=token("<|vision_eos|>"),
    )


def _omni3(token: Ids) -> Any:
    vision = {**_EYE, "patch_size": 16, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    experts = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
    return make_config(
        "Qwen3OmniMoeThinkerConfig",
        text_config={**TEXT, "head_dim": 16, "rope_parameters": _MROPE3, **experts},
        vision_config=vision,
        audio_config={**_EAR, "output_dim": 32, "downsample_hidden_size": 8},
        audio_token_id=token("<|audio_pad|>"),
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        audio_start_token_id=token("<|audio_start|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )


def _omni_named(vision: tuple[str, str], audio: tuple[str, str], pads: tuple[str, str, str]) -> dict[str, str]:
    return {
        "vision_bos_token": vision[0],
        "vision_eos_token": vision[1],
        "audio_bos_token": audio[0],
        "audio_eos_token": audio[1],
        "image_token": pads[0],
        "video_token": pads[1],
        "audio_token": pads[2],
    }


_EARS = {
    "qwen2_audio": Case(
        "qwen2_audio",
        "Qwen2AudioProcessor",
        tokens=("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"),
        parts=lambda: {"feature_extractor": _whisper()},
        config=_qwen2_audio,
        model="Qwen2AudioForConditionalGeneration",
        feature={"audio": "<|AUDIO|>"},
        counted=False,
    ),
    "qwen2_5_omni": Case(
        "qwen2_5_omni",
        "Qwen2_5OmniProcessor",
        _omni_named(
            ("<|vision_bos|>", "<|vision_eos|>"),
            ("<|audio_bos|>", "<|audio_eos|>"),
            ("<|IMAGE|>", "<|VIDEO|>", "<|AUDIO|>"),
        ),
        parts=lambda: {
            "image_processor": part("Qwen2VLImageProcessorPil", size=_SMALL),
            "feature_extractor": _whisper(),
        },
        video=lambda: part("Qwen2VLVideoProcessor", size=_SMALL_FILM),
        config=_omni,
        model="Qwen2_5OmniThinkerForConditionalGeneration",
        feature={"image": "<|IMAGE|>", "video": "<|VIDEO|>", "audio": "<|AUDIO|>"},
    ),
    "qwen3_omni_moe": Case(
        "qwen3_omni_moe",
        "Qwen3OmniMoeProcessor",
        _omni_named(
            ("<|vision_start|>", "<|vision_end|>"),
            ("<|audio_start|>", "<|audio_end|>"),
            ("<|image_pad|>", "<|video_pad|>", "<|audio_pad|>"),
        ),
        parts=lambda: {
            "image_processor": part("Qwen2VLImageProcessorPil", size=_SMALL, patch_size=16),
            "feature_extractor": _whisper(),
        },
        video=lambda: part("Qwen2VLVideoProcessor", size=_SMALL_FILM, patch_size=16),
        config=_omni3,
        model="Qwen3OmniMoeThinkerForConditionalGeneration",
        feature={"image": "<|image_pad|>", "video": "<|video_pad|>", "audio": "<|audio_pad|>"},
        padded=True,
    ),
}

GRIDS: dict[str, Case] = {**_GLMS, **_OTHERS, **_EARS}
