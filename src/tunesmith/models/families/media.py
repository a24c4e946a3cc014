"""Types of models (`model_type` of config.json) that see or hear, where their processors are not as of most. Facts of
`media.family.MediaFamily`; a type that is in no list here has the defaults.

tests/contracts/test_processors.py compares each with the processor of transformers; docs/multimodal.md has the table.
"""

from __future__ import annotations

from typing import Any

__all__ = ["MEDIA"]

_MM = ("mm_token_type_ids",)
_FIXED = {"image": "fixed"}


def _around(image: str, video: str | None = None, **others: str) -> dict[str, str]:
    return {"image": image, **({"video": video} if video else {}), **others}


_QWEN = {"around": _around(*["<|vision_start|>{}<|vision_end|>"] * 2), "tokens": _MM}

MEDIA: dict[str, dict[str, Any]] = {
    "llava": {"rules": _FIXED},
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
}
