"""LlamaFactory's plugins for media, and which families here stand for each; and what no class of transformers reads."""

from __future__ import annotations

__all__ = ["NO_CLASS", "PLUGINS"]

PLUGINS: dict[str, tuple[str, ...]] = {
    "ernie_vl": ("ernie4_5_vl_moe",),
    "gemma3": ("gemma3",),
    "gemma3n": ("gemma3n",),
    "gemma4": ("gemma4",),
    "glm4v": ("glm4v", "glm4v_moe", "glm46v", "glm_ocr"),
    "intern_vl": ("internvl",),
    "kimi_vl": (),
    "llama4": ("llama4",),
    "llava": ("llava",),
    "llava_next": ("llava_next", "granite4_vision"),
    "llava_next_video": ("llava_next_video",),
    "lfm2_vl": ("lfm2_vl",),
    "minicpm_v": (),
    "minicpm_v_4_6": ("minicpmv4_6",),
    "mllama": ("mllama",),
    "moss_vl": (),
    "paligemma": ("paligemma",),
    "pixtral": ("pixtral", "mistral3"),
    "qwen2_audio": ("qwen2_audio",),
    "qwen2_omni": ("qwen2_5_omni", "qwen3_omni_moe"),
    "qwen2_vl": ("qwen2_vl", "qwen2_5_vl"),
    "qwen3_vl": ("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"),
    "video_llava": ("video_llava",),
    "youtu_vl": (),
}
"""And `base`, of models that read text."""

NO_CLASS: dict[str, tuple[str, ...]] = {
    "dots.ocr": ("dots_ocr",),
    "Intern-S1": ("interns1",),
    "Keye-VL": ("keye", "KeyeVL1_5"),
    "Kimi-VL": ("kimi_vl",),
    "MiniCPM-V to 4.5, MiniCPM-o": ("minicpmv", "minicpmo"),
    "MOSS-VL": ("moss_vl",),
    "Yi-VL": ("yi_vl",),
    "Youtu-VL": ("youtu_vl",),
}
"""Groups of models whose types (`model_type`) transformers has no classes for: their repositories bring code."""
