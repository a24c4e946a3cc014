"""Media as a processor gets them: how large one is, from its facts alone; read from its file; and blank ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tunesmith.core.types import Medium, Modality
from tunesmith.media.audio import audio_length, read_audio
from tunesmith.media.images import image_size, read_image
from tunesmith.media.limits import MediaLimits
from tunesmith.media.video import frame_indices, read_video, video_size

__all__ = ["Size", "arguments", "blank_medium", "read_medium", "size_of"]


class Size(NamedTuple):
    """What decides how many tokens a medium has: pixels, the numbers of the frames that are taken of a video and how
    many it has a second, samples of sound."""

    width: int = 0
    height: int = 0
    frames: tuple[int, ...] = ()
    fps: float = 0.0
    samples: int = 0


def size_of(medium: Medium, limits: MediaLimits) -> Size:
    """Of a settled medium, as `read_medium` reads it."""
    facts = medium.facts
    assert facts is not None, "media are settled before they are rendered"
    if medium.kind == "image":
        return Size(*image_size(facts, limits))
    if medium.kind == "audio":
        return Size(samples=audio_length(facts, limits.audio_sampling_rate))
    frames = tuple(frame_indices(facts, limits))
    return Size(*video_size(facts, limits), frames, facts.fps or limits.video_fps)


def read_medium(medium: Medium, limits: MediaLimits) -> Any:
    """A settled medium: a picture of PIL, samples of sound, or frames of a video with what is told of them. Raises
    DataError for what cannot be decoded."""
    facts, source = medium.facts, medium.source
    assert facts is not None, "media are settled before they are read"
    assert not isinstance(source, bytes), "media are settled before they are read"
    if medium.kind == "video":
        return read_video(source if isinstance(source, str) else [str(one) for one in source], facts, limits)
    assert isinstance(source, str), "a picture or a sound is one file"
    if medium.kind == "image":
        return read_image(source, limits, facts)
    return read_audio(source, limits.audio_sampling_rate, facts)


def blank_medium(kind: Modality, size: Size) -> Any:
    """A grey picture, a black video, silence, in the form in which they are read."""
    if kind == "image":
        from PIL import Image

        return Image.new("RGB", (size.width, size.height), (128, 128, 128))
    if kind == "audio":
        return np.zeros(size.samples, np.float32)
    told = {
        "total_num_frames": max(size.frames) + 1,
        "fps": size.fps,
        "width": size.width,
        "height": size.height,
        "frames_indices": list(size.frames),
    }
    return np.zeros((len(size.frames), size.height, size.width, 3), np.uint8), told


def arguments(kind: Modality, some: Sequence[Any], settings: Mapping[str, Any], rate: int) -> dict[str, Any]:
    """The arguments of a processor for media of one kind, as a reader gives them. `rate`: samples of sound a second."""
    if kind == "image":
        return {"images": list(some), "images_kwargs": dict(settings)}
    if kind == "audio":
        return {"audio": list(some), "audio_kwargs": {"sampling_rate": rate, **settings}}
    told = {"video_metadata": [dict(metadata) for _, metadata in some], "do_sample_frames": False}
    # A copy each: what was read is shared, and torch wants arrays that may be written.
    return {"videos": [frames.copy() for frames, _ in some], "videos_kwargs": {**told, **settings}}
