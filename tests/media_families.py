"""The families of models that see or hear: a case for each, with the real processor and a tiny random model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.media_cases import Case, make_config, part
from tests.media_families_grids import GRIDS
from tests.media_families_more import MORE
from tests.media_shapes import EXPERTS, SIGLIP, TEXT, TOWER, Ids, Kwargs

__all__ = ["CASES"]


_LLAMA: Kwargs = {"model_type": "llama", **TEXT}
_CLIP: Kwargs = {"model_type": "clip_vision_model", "projection_dim": 16, **TOWER}


def _square(name: str, size: int = 56, **others: Any) -> Any:
    sizes = {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
    return part(name, **{**sizes, **others})


# -- LLaVA and what is made like it

_PATCHES = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
_PINPOINTS = [[56, 112], [112, 56], [112, 112]]


def _llava(config: str) -> Callable[[Ids], Any]:
    def make(token: Ids) -> Any:
        ids = {"image_token_index": token("<image>")}
        if "Video" in config:
            ids["video_token_index"] = token("<video>")
        settings: Kwargs = {"vision_config": _CLIP, "text_config": _LLAMA, "vision_feature_layer": -1, **ids}
        if "Next" in config:
            settings["image_grid_pinpoints"] = _PINPOINTS
        return make_config(config, **settings)

    return make


def _next_processor() -> Any:
    return _square("LlavaNextImageProcessorPil", image_grid_pinpoints=_PINPOINTS)


def _granite_vision(token: Ids) -> Any:
    settings: Kwargs = {
        "vision_config": {**SIGLIP, "hidden_size": 64},
        "text_config": {**TEXT},
        "image_token_index": token("<image>"),
        "image_grid_pinpoints": _PINPOINTS,
        "downsample_rate": "1/2",
        "deepstack_layer_map": [[-1, 0]],
        "spatial_target_layers": [1],
        "qformer_config": {"num_hidden_layers": 1, "intermediate_size": 16},
        "vision_feature_select_strategy": "full",
    }
    return make_config("Granite4VisionConfig", **settings)


_LLAVAS = {
    "llava": Case(
        "llava",
        "LlavaProcessor",
        {"image_token": "<image>"},
        parts=lambda: {"image_processor": _square("CLIPImageProcessorPil")},
        settings=_PATCHES,
        config=_llava("LlavaConfig"),
        model="LlavaForConditionalGeneration",
        feature={"image": "<image>"},
    ),
    "llava_next": Case(
        "llava_next",
        "LlavaNextProcessor",
        {"image_token": "<image>"},
        parts=lambda: {"image_processor": _next_processor()},
        settings=_PATCHES,
        config=_llava("LlavaNextConfig"),
        model="LlavaNextForConditionalGeneration",
        feature={"image": "<image>"},
    ),
    "llava_next_video": Case(
        "llava_next_video",
        "LlavaNextVideoProcessor",
        {"image_token": "<image>", "video_token": "<video>"},
        parts=lambda: {"image_processor": _next_processor()},
        video=lambda: _square("LlavaNextVideoVideoProcessor"),
        settings=_PATCHES,
        config=_llava("LlavaNextVideoConfig"),
        model="LlavaNextVideoForConditionalGeneration",
        feature={"image": "<image>", "video": "<video>"},
        even=True,
    ),
    "video_llava": Case(
        "video_llava",
        "VideoLlavaProcessor",
        tokens=("<image>", "<video>"),
        parts=lambda: {"image_processor": _square("VideoLlavaImageProcessor")},
        video=lambda: _square("VideoLlavaVideoProcessor"),
        settings=_PATCHES,
        config=_llava("VideoLlavaConfig"),
        model="VideoLlavaForConditionalGeneration",
        feature={"image": "<image>", "video": "<video>"},
        tower=("image_tower", "video_tower"),
        even=True,
    ),
    "granite4_vision": Case(
        "granite4_vision",
        "Granite4VisionProcessor",
        {"image_token": "<image>"},
        parts=lambda: {"image_processor": _next_processor()},
        settings={"patch_size": 14, "vision_feature_select_strategy": "full", "downsample_rate": "1/2"},
        config=_granite_vision,
        model="Granite4VisionForConditionalGeneration",
        feature={"image": "<image>"},
        counted=False,
    ),
}

# -- Qwen

_QWEN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_QWEN_FEATURES = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
_EYE: Kwargs = {
    "depth": 2,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_heads": 2,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 32,
}
_EYE3: Kwargs = {**_EYE, "patch_size": 16, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
_MROPE: Kwargs = {"rope_type": "default", "type": "mrope", "mrope_section": [2, 3, 3], "rope_theta": 10_000.0}
_MROPE3: Kwargs = {
    "rope_type": "default",
    "mrope_section": [2, 3, 3],
    "mrope_interleaved": True,
    "rope_theta": 10_000.0,
}
_SMALL = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 40}
_SMALL_FILM = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 80}


def _qwen(config: str, eye: Kwargs, text: Kwargs) -> Callable[[Ids], Any]:
    def make(token: Ids) -> Any:
        names = ("vision_start", "vision_end", "image_pad", "video_pad")
        keys = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
        ids = {key: token(f"<|{name}|>") for key, name in zip(keys, names, strict=True)}
        return make_config(config, vision_config=eye, text_config={**TEXT, **text}, **ids)

    return make


def _qwen_case(kind: str, processor: str, film: str, make: Callable[[Ids], Any], model: str, **sizes: Any) -> Case:
    return Case(
        kind,
        processor,
        tokens=_QWEN_TOKENS,
        parts=lambda: {"image_processor": part("Qwen2VLImageProcessorPil", size=_SMALL, **sizes)},
        video=lambda: part(film, size=_SMALL_FILM, **sizes),
        config=make,
        model=model,
        feature=_QWEN_FEATURES,
    )


_HYBRID: Kwargs = {
    "layer_types": ["linear_attention", "full_attention"],
    "head_dim": 16,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "rope_parameters": {**_MROPE3, "partial_rotary_factor": 1.0},
}
_QWENS = {
    "qwen2_vl": _qwen_case(
        "qwen2_vl",
        "Qwen2VLProcessor",
        "Qwen2VLVideoProcessor",
        _qwen(
            "Qwen2VLConfig", {**_EYE, "embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2}, {"rope_parameters": _MROPE}
        ),
        "Qwen2VLForConditionalGeneration",
    ),
    "qwen2_5_vl": _qwen_case(
        "qwen2_5_vl",
        "Qwen2_5_VLProcessor",
        "Qwen2VLVideoProcessor",
        _qwen("Qwen2_5_VLConfig", {**_EYE, "fullatt_block_indexes": [1]}, {"rope_parameters": _MROPE}),
        "Qwen2_5_VLForConditionalGeneration",
    ),
    "qwen3_vl": _qwen_case(
        "qwen3_vl",
        "Qwen3VLProcessor",
        "Qwen3VLVideoProcessor",
        _qwen("Qwen3VLConfig", _EYE3, {"head_dim": 16, "rope_parameters": _MROPE3}),
        "Qwen3VLForConditionalGeneration",
        patch_size=16,
    ),
    "qwen3_vl_moe": _qwen_case(
        "qwen3_vl_moe",
        "Qwen3VLProcessor",
        "Qwen3VLVideoProcessor",
        _qwen("Qwen3VLMoeConfig", _EYE3, {"head_dim": 16, "rope_parameters": _MROPE3, **EXPERTS}),
        "Qwen3VLMoeForConditionalGeneration",
        patch_size=16,
    ),
    "qwen3_5": _qwen_case(
        "qwen3_5",
        "Qwen3VLProcessor",
        "Qwen3VLVideoProcessor",
        _qwen("Qwen3_5Config", {**_EYE3, "deepstack_visual_indexes": []}, _HYBRID),
        "Qwen3_5ForConditionalGeneration",
        patch_size=16,
    ),
    "qwen3_5_moe": _qwen_case(
        "qwen3_5_moe",
        "Qwen3VLProcessor",
        "Qwen3VLVideoProcessor",
        _qwen(
            "Qwen3_5MoeConfig",
            {**_EYE3, "deepstack_visual_indexes": []},
            {**_HYBRID, **EXPERTS, "shared_expert_intermediate_size": 16},
        ),
        "Qwen3_5MoeForConditionalGeneration",
        patch_size=16,
    ),
}

CASES: dict[str, Case] = {**_LLAVAS, **_QWENS, **MORE, **GRIDS}
