"""Families of models that see or hear, tiny: the real processor of each made from code, and a random model.

Vocabularies are GPT-2's with the tokens of the family. What a case says of a family stands in the files of
its repositories: names of tokens, sizes, the model's config.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tunesmith.core.types import MediaFacts, Medium
from tunesmith.media.images import image_size
from tunesmith.media.limits import MediaLimits
from tunesmith.media.processor import Media, Missing
from tunesmith.media.video import frame_indices
from tunesmith.models.media import make_media, with_gaps

__all__ = ["Case", "Shelf", "has_torchvision", "make_config", "media_of_case", "part", "processor_of", "tokenizer_of"]

Kwargs = dict[str, Any]
ASSETS = Path(os.environ.get("TUNESMITH_ASSETS") or Path(__file__).parents[2] / "shared" / "assets").resolve()


@dataclass(frozen=True)
class Case:
    """`named`: tokens that the tokenizer has as attributes. `tokens`: its other special ones. `parts`: makes image
    processor and feature extractor, by the processor's names; `video`: makes the video processor. `config`: of a tiny
    model, by ids of tokens.
    """

    model_type: str
    processor: str
    named: Mapping[str, str] = field(default_factory=dict)
    tokens: Sequence[str] = ()
    parts: Callable[[], Kwargs] = dict
    video: Callable[[], Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    config: Callable[[Callable[[str], int]], Any] | None = None
    model: str = ""
    feature: Mapping[str, str] = field(default_factory=dict)
    """The token in whose place the features of a kind go."""
    literal: str = "<|image|>"
    """The one that stands for an image, where features go another way."""
    call: Mapping[str, Kwargs] = field(default_factory=dict)
    """Settings of the processor that follow from the default limits, by kind."""
    told: Callable[[str], str] = str
    """The rendered text as the processor wants it."""
    counted: bool = True
    """The model tells the features that it puts in the places; of others it is seen whether it misses one."""
    tower: tuple[str, ...] = ("vision", "visual", "audio")
    """Parts of the names of weights that get a gradient first: what is behind a projector of zeros gets none."""
    even: bool = False
    """All videos must have the same number of frames."""
    padded: bool = False
    """What a sound is filled up with shows in its last frames, so it matters which others it is prepared with."""
    batched: bool = False
    """Tensors have an axis of sequences before that of media."""
    torchvision: bool = False
    """The processor needs it for all kinds."""
    package: str | None = None
    """One that the processor needs beside it."""
    model_package: str | None = None
    """One that the model needs."""

    def lacks(self) -> str | None:
        return f"needs {self.package}" if self.package and find_spec(self.package) is None else None

    def model_lacks(self) -> str | None:
        return f"needs {self.model_package}" if self.model_package and find_spec(self.model_package) is None else None


def tokenizer_of(case: Case) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "tokenizers" / "gpt2", extra_special_tokens=dict(case.named))
    every = [*case.named.values(), *case.tokens, "<|im_start|>", "<|im_end|>", "<bos>"]
    tokenizer.pad_token = tokenizer.eos_token
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


def media_of_case(case: Case, shelf: Shelf, limits: MediaLimits | None = None, tokenizer: Any = None) -> Media:
    processor = processor_of(case, tokenizer or tokenizer_of(case))
    return make_media(processor, limits or MediaLimits(), read=shelf.read)


def processor_of(case: Case, tokenizer: Any) -> Any:
    import transformers

    cls = getattr(transformers, case.processor)
    parts = case.parts()
    if "video_processor" in cls.get_attributes():
        parts["video_processor"] = case.video() if case.video and has_torchvision() else Missing()
    return with_gaps(cls)(tokenizer=tokenizer, **parts, **case.settings)


def has_torchvision() -> bool:
    return find_spec("torchvision") is not None


def part(name: str, **settings: Any) -> Any:
    import transformers

    return getattr(transformers, name)(**settings)


def make_config(name: str, **settings: Any) -> Any:
    import transformers

    return getattr(transformers, name)(**copy.deepcopy(settings))
