"""How large media are when a model sees them: what the keys of config/media.py say, and the rule of sizes."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, fields
from typing import Protocol

__all__ = ["MediaLimits", "MediaSettings", "fitted"]


class MediaSettings(Protocol):
    """What config/media.py has."""

    @property
    def image_max_pixels(self) -> int: ...
    @property
    def image_min_pixels(self) -> int: ...
    @property
    def image_do_pan_and_scan(self) -> bool: ...
    @property
    def crop_to_patches(self) -> bool: ...
    @property
    def video_max_pixels(self) -> int: ...
    @property
    def video_min_pixels(self) -> int: ...
    @property
    def video_fps(self) -> float: ...
    @property
    def video_maxlen(self) -> int: ...
    @property
    def use_audio_in_video(self) -> bool: ...
    @property
    def audio_sampling_rate(self) -> int: ...


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """The keys of config/media.py under their names: areas in pixels, frames a second, frames, Hz."""

    image_max_pixels: int = 768 * 768
    image_min_pixels: int = 32 * 32
    image_do_pan_and_scan: bool = False
    crop_to_patches: bool = False
    video_max_pixels: int = 256 * 256
    video_min_pixels: int = 16 * 16
    video_fps: float = 2.0
    video_maxlen: int = 128
    use_audio_in_video: bool = False
    audio_sampling_rate: int = 16000

    @classmethod
    def of(cls, settings: MediaSettings) -> MediaLimits:
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})


def fitted(width: int, height: int, most: int, least: int) -> tuple[int, int]:
    """The size of a picture whose area is over `most` pixels, or under `least`, as LlamaFactory has it: both sides
    times the root of the quotient of the areas, rounded down; and never below 1."""
    for area, wrong in ((most, operator.gt), (least, operator.lt)):
        if wrong(width * height, area):
            factor = math.sqrt(area / (width * height))
            width, height = max(1, int(width * factor)), max(1, int(height * factor))
    return width, height
