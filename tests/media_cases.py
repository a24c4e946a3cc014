"""Families of models that see or hear, tiny: the real processor of each made from code, and a random model.

Vocabularies are GPT-2's with the tokens of the family. What a case says of a family stands in the files of
its repositories: names of tokens, sizes, the model's config.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tunesmith.core.types import MediaFacts, Medium
from tunesmith.media.images import image_size
from tunesmith.media.limits import MediaLimits
from tunesmith.media.processor import Media
from tunesmith.media.video import frame_indices
from tunesmith.models.media import make_media, with_gaps

__all__ = ["CASES", "Case", "Shelf", "media_of_case", "tokenizer_of"]

Kwargs = dict[str, Any]
ASSETS = Path(os.environ.get("TUNESMITH_ASSETS") or Path(__file__).parents[2] / "shared" / "assets").resolve()


@dataclass(frozen=True)
class Case:
    """`named`: tokens that the tokenizer has as attributes. `tokens`: its other special ones. `parts`: makes image
    processor, video processor and the like, by the processor's names. `config`: of a tiny model, by ids of tokens.
    """

    kinds: tuple[str, ...]
    processor: str
    named: Mapping[str, str] = field(default_factory=dict)
    tokens: Sequence[str] = ()
    parts: Callable[[], Kwargs] = dict
    settings: Mapping[str, Any] = field(default_factory=dict)
    config: Callable[[Callable[[str], int]], Any] | None = None
    model: str = ""
    feature: Mapping[str, str] = field(default_factory=dict)
    """The token in whose place the features of a kind go."""
    torchvision: bool = False
    """The processor needs it for all kinds."""


@cache
def _base() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(ASSETS / "tokenizers" / "gpt2")


def tokenizer_of(case: Case) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "tokenizers" / "gpt2", extra_special_tokens=dict(case.named))
    every = [*case.named.values(), *case.tokens, "<|im_start|>", "<|im_end|>", "<bos>"]
    tokenizer.add_special_tokens({"additional_special_tokens": list(dict.fromkeys(every))})
    return tokenizer


@dataclass
class Shelf:
    """Media that are not in files: their names are their paths."""

    things: dict[str, Any] = field(default_factory=dict)

    def image(self, width: int, height: int) -> Medium:
        name = f"image {len(self.things)}"
        noise = np.random.default_rng(len(self.things)).integers(0, 256, (height, width, 3), np.uint8)
        self.things[name] = Image.fromarray(noise)
        return Medium("image", name, MediaFacts(width, height, digest=name))

    def audio(self, seconds: float, rate: int = 16_000) -> Medium:
        name = f"audio {len(self.things)}"
        samples = round(seconds * rate)
        self.things[name] = np.random.default_rng(samples).normal(size=samples).astype(np.float32)
        return Medium("audio", name, MediaFacts(seconds=seconds, digest=name))

    def video(self, width: int, height: int, frames: int, fps: float = 2.0) -> Medium:
        name = f"video {len(self.things)}"
        noise = np.random.default_rng(frames).integers(0, 256, (frames, height, width, 3), np.uint8)
        self.things[name] = noise
        return Medium("video", name, MediaFacts(width, height, frames, fps, frames / fps, name))

    def read(self, medium: Medium) -> Any:
        """As `media.sizes.read_medium`, with the default limits."""
        found = self.things[str(medium.source)]
        facts, limits = medium.facts, MediaLimits()
        assert facts is not None
        if medium.kind == "image":
            return found.resize(image_size(facts, limits))
        if medium.kind == "audio":
            return found
        indices = frame_indices(facts, limits)
        told = {"total_num_frames": facts.frames, "fps": facts.fps, "frames_indices": indices}
        return found[indices], told


def media_of_case(model_type: str, shelf: Shelf, limits: MediaLimits | None = None, tokenizer: Any = None) -> Media:
    case = CASES[model_type]
    processor = processor_of(case, tokenizer or tokenizer_of(case))
    return make_media(processor, model_type, limits or MediaLimits(), read=shelf.read)


def processor_of(case: Case, tokenizer: Any) -> Any:
    import transformers

    cls = getattr(transformers, case.processor)
    parts = case.parts()
    if "video_processor" in cls.get_attributes():
        parts.setdefault("video_processor", None)
    return with_gaps(cls)(tokenizer=tokenizer, **parts, **case.settings)


def has_torchvision() -> bool:
    return find_spec("torchvision") is not None


def part(name: str, **settings: Any) -> Any:
    import transformers

    return getattr(transformers, name)(**settings)


# -- tiny configs

_TEXT: Kwargs = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 50_400,
    "max_position_embeddings": 4096,
}
_CLIP: Kwargs = {
    "model_type": "clip_vision_model",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
    "projection_dim": 16,
}


def _config(name: str, **settings: Any) -> Any:
    import transformers

    return getattr(transformers, name)(**copy.deepcopy(settings))


def _llava(token: Callable[[str], int]) -> Any:
    return _config(
        "LlavaConfig",
        vision_config=_CLIP,
        text_config={"model_type": "llama", **_TEXT},
        image_token_index=token("<image>"),
        vision_feature_layer=-1,
    )


def _square(name: str, size: int = 56, **others: Any) -> Any:
    sizes = {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
    return part(name, **{**sizes, **others})


_QWEN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_QWEN_VISION: Kwargs = {
    "depth": 2,
    "embed_dim": 16,
    "hidden_size": 32,
    "num_heads": 2,
    "mlp_ratio": 2,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
_QWEN_SIZE = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 40}


def _qwen_ids(token: Callable[[str], int]) -> Kwargs:
    names = ("vision_start", "vision_end", "image_pad", "video_pad")
    keys = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    return {key: token(f"<|{name}|>") for key, name in zip(keys, names, strict=True)}


def _qwen2_vl(token: Callable[[str], int]) -> Any:
    rope = {"rope_type": "default", "type": "mrope", "mrope_section": [2, 3, 3], "rope_theta": 10_000.0}
    text = {**_TEXT, "rope_parameters": rope, **_qwen_ids(token)}
    return _config("Qwen2VLConfig", vision_config=_QWEN_VISION, text_config=text, **_qwen_ids(token))


CASES: dict[str, Case] = {
    "llava": Case(
        ("image",),
        "LlavaProcessor",
        {"image_token": "<image>"},
        parts=lambda: {"image_processor": _square("CLIPImageProcessorPil")},
        settings={"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
        config=_llava,
        model="LlavaForConditionalGeneration",
        feature={"image": "<image>"},
    ),
    "qwen2_vl": Case(
        ("image", "video"),
        "Qwen2VLProcessor",
        tokens=_QWEN_TOKENS,
        parts=lambda: {"image_processor": part("Qwen2VLImageProcessorPil", size=_QWEN_SIZE)},
        config=_qwen2_vl,
        model="Qwen2VLForConditionalGeneration",
        feature={"image": "<|image_pad|>", "video": "<|video_pad|>"},
    ),
}
