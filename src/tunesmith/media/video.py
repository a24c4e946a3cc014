"""Video: measured without decoding more than a frame, and only those frames decoded that a model sees.

facts = measure_video(path)
frames, metadata = read_video(path, facts, limits)     # uint8 [F, H, W, 3]
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tunesmith.core.types import MediaFacts
from tunesmith.media.faults import changed, damaged, fault
from tunesmith.media.files import digest_of
from tunesmith.media.frames import frame_paths, measure_frames
from tunesmith.media.images import check_size, read_rgb, resized
from tunesmith.media.limits import MediaLimits, fitted
from tunesmith.media.packets import Player, opened_film, scan

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Frames", "Source", "frame_indices", "measure_video", "read_video", "video_size"]

Frames: TypeAlias = npt.NDArray[np.uint8]
"""[F, H, W, 3]: frames, height, width, RGB."""
Source: TypeAlias = str | Path | Sequence[str]
"""A file, a folder of pictures, or their paths."""


def measure_video(source: Source) -> MediaFacts:
    """Size, number of frames, frames a second (0 for pictures) and seconds of a film, a folder or a list of pictures.

    Raises DataError for what is none, or damaged.
    """
    source = _plain(source)
    if (paths := frame_paths(source)) is not None:
        return measure_frames(paths, source if isinstance(source, str) else "a list of frames")
    assert isinstance(source, str)
    with opened_film(source, "video") as container:
        stream = _stream(container, source)
        frame = next(container.decode(stream), None)
        if frame is None:
            raise fault("E-MEDIA-020", "the video has no frames", source, "0 frames")
        width, height = frame.width, frame.height
        if _turn(frame) % 2:
            width, height = height, width
        check_size(source, width, height, "frame of the video")
    with opened_film(source, "video") as container:
        stream = _stream(container, source)
        found = scan(container, stream, source)
        frames = len(found.times)
        fps = float(stream.average_rate or stream.guessed_rate or 0)
        seconds = _seconds(container, stream, found.times, fps)
    return MediaFacts(width, height, frames, fps or frames / seconds, seconds, digest_of(source))


def _seconds(container: Any, stream: Any, times: npt.NDArray[np.int64], fps: float) -> float:
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if container.duration:
        return float(container.duration / 1_000_000)
    between = float((times[-1] - times[0]) * stream.time_base)
    return between + (1 / fps if fps else max(between / len(times), 0.04))


def frame_indices(facts: MediaFacts, limits: MediaLimits) -> list[int]:
    """Which frames a model sees: `video_fps` a second, at most `video_maxlen`, evenly from the first to the last, as
    LlamaFactory has it. Of pictures without times all, up to `video_maxlen`."""
    wanted = max(1, math.floor(facts.seconds * limits.video_fps)) if facts.fps else facts.frames
    count = min(facts.frames, limits.video_maxlen, wanted)
    return [int(index) for index in np.linspace(0, facts.frames - 1, count).astype(np.int32)]


def video_size(facts: MediaFacts, limits: MediaLimits) -> tuple[int, int]:
    """Width and height of the frames that `read_video` gives."""
    return fitted(facts.width, facts.height, limits.video_max_pixels, limits.video_min_pixels)


def read_video(source: Source, facts: MediaFacts, limits: MediaLimits) -> tuple[Frames, dict[str, Any]]:
    """The frames of `frame_indices` and what transformers calls a video's metadata.

    Raises DataError for a file that has changed since it was measured (E-MEDIA-022) or cannot be decoded.
    """
    indices, (width, height) = frame_indices(facts, limits), video_size(facts, limits)
    source = _plain(source)
    if (paths := frame_paths(source)) is not None:
        pictures = _from_pictures(paths, facts, indices)
    else:
        pictures = _from_film(str(source), facts, indices)
    frames = np.empty((len(indices), height, width, 3), np.uint8)
    for place, picture in zip(frames, pictures, strict=True):
        place[:] = np.asarray(resized(picture, (width, height)))
    metadata = {
        "total_num_frames": facts.frames,
        "fps": facts.fps or limits.video_fps,
        "width": width,
        "height": height,
        "duration": facts.seconds or facts.frames / limits.video_fps,
        "video_backend": "pyav",
        "frames_indices": indices,
    }
    return frames, metadata


def _plain(source: Source) -> str | tuple[str, ...]:
    return str(source) if isinstance(source, str | Path) else tuple(source)


def _from_pictures(paths: Sequence[str], facts: MediaFacts, indices: Sequence[int]) -> Iterator[Image]:
    if len(paths) != facts.frames:
        raise changed(paths[0] if paths else "a folder of frames", f"{len(paths):,} pictures, {facts.frames:,} then")
    for index in indices:
        picture = read_rgb(paths[index])
        if picture.size != (facts.width, facts.height):
            raise changed(paths[index], f"{picture.size[0]} x {picture.size[1]} pixels")
        yield picture


def _from_film(source: str, facts: MediaFacts, indices: Sequence[int]) -> Iterator[Image]:
    with opened_film(source, "video") as container:
        found = scan(container, _stream(container, source), source)
    if len(found.times) != facts.frames:
        raise changed(source, f"{len(found.times):,} frames, {facts.frames:,} then")
    with opened_film(source, "video") as container:
        player = Player(container, _stream(container, source), found.keys)
        for index in indices:
            frame = player.at(int(found.times[index]))
            if frame is None:
                raise damaged(source, f"no frame can be decoded at place {index}")
            yield _upright(frame)


def _stream(container: Any, source: str) -> Any:
    from av.stream import Disposition

    films = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]  # a cover
    if not films:
        raise fault("E-MEDIA-020", "the file has no video", source, "sound only")
    stream = films[0]
    if stream.codec_context is None:
        raise damaged(source, "its codec is not one that FFmpeg knows")
    stream.codec_context.thread_count = 1  # loader workers are the processes that run side by side
    return stream


def _turn(frame: Any) -> int:
    """Quarters of a turn, counterclockwise, that bring a frame upright."""
    return round(int(frame.rotation) / 90) % 4


def _upright(frame: Any) -> Image:
    from PIL.Image import Transpose

    picture: Image = frame.to_image()
    turns = (None, Transpose.ROTATE_90, Transpose.ROTATE_180, Transpose.ROTATE_270)
    turn = turns[_turn(frame)]
    return picture if turn is None else picture.transpose(turn)
