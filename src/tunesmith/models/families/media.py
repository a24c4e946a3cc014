"""Processors of images, videos and sound (by class) that are not as most are: facts of `media.family.MediaFamily`.
A class that is not here has the defaults.

tests/contracts/test_processors.py compares each with the processor of transformers; docs/multimodal.md has the table.
"""

from __future__ import annotations

from typing import Any

__all__ = ["MEDIA"]

_FIXED: dict[str, Any] = {"fixed": ("image",)}


def _around(image: str, **others: str) -> dict[str, Any]:
    return {"around": {"image": image, **others}}


_QWEN = _around("<|vision_start|>{}<|vision_end|>", video="<|vision_start|>{}<|vision_end|>")
_GLM = _around("<|begin_of_image|>{}<|end_of_image|>", video="<|begin_of_video|>{}<|end_of_video|>")
_IDEFICS = {"axes": {"pixel_values": 1, "pixel_attention_mask": 1}}
_EVEN: dict[str, Any] = {"pads": {"pixel_values_videos": None}, "singly": ("video",)}
# LlamaFactory's settings of both.
_PAN_AND_SCAN = {
    "do_pan_and_scan": True,
    "pan_and_scan_min_crop_size": 256,
    "pan_and_scan_max_num_crops": 4,
    "pan_and_scan_min_ratio_to_activate": 1.2,
}
_TILES = {"crop_to_patches": True, "min_patches": 1, "max_patches": 12}

MEDIA: dict[str, dict[str, Any]] = {
    "Ernie4_5_VLMoeProcessor": {
        **_around("Picture {n}:<|IMAGE_START|>{}<|IMAGE_END|>", video="Video {n}:<|VIDEO_START|>{}<|VIDEO_END|>"),
        "tokens": ("mm_token_type_ids", "moe_mm_token_type_ids"),
    },
    "Gemma3Processor": {
        "tokens": ("token_type_ids",),
        "switches": {"image_do_pan_and_scan": (_PAN_AND_SCAN, {"do_pan_and_scan": False})},
    },
    "Gemma3nProcessor": {"fixed": ("image", "audio"), "tokens": ("token_type_ids",)},
    "Gemma4Processor": {"pads": {"image_position_ids": -1, "video_position_ids": -1}},
    "Glm46VProcessor": _GLM,
    "Glm4vProcessor": _GLM,
    "Idefics3Processor": _IDEFICS,
    "InternVLProcessor": {
        "singly": ("video",),
        "switches": {"crop_to_patches": (_TILES, {"crop_to_patches": False})},
    },
    "LlavaNextVideoProcessor": _EVEN,
    "LlavaProcessor": _FIXED,
    "MiniCPMV4_6Processor": {
        "numbered": "<image_id>{}</image_id>",
        "axes": {"pixel_values": 3, "pixel_values_videos": 3},
    },
    "MllamaProcessor": {"literal": True, "tokens": ("cross",), **_FIXED},
    "PaliGemmaProcessor": {"leads": True, "tokens": ("prefix",), **_FIXED},
    "Qwen2AudioProcessor": {"around": {"audio": "<|audio_bos|>{}<|audio_eos|>"}},
    "Qwen2VLProcessor": _QWEN,
    "Qwen2_5OmniProcessor": _around(
        "<|vision_bos|>{}<|vision_eos|>",
        video="<|vision_bos|>{}<|vision_eos|>",
        audio="<|audio_bos|>{}<|audio_eos|>",
    ),
    "Qwen2_5_VLProcessor": _QWEN,
    "Qwen3OmniMoeProcessor": _around(
        "<|vision_start|>{}<|vision_end|>",
        video="<|vision_start|>{}<|vision_end|>",
        audio="<|audio_start|>{}<|audio_end|>",
    ),
    "Qwen3VLProcessor": _QWEN,
    "SmolVLMProcessor": _IDEFICS,
    "VideoLlavaProcessor": {**_FIXED, **_EVEN},
}
