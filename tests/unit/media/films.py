"""Films made for tests: each frame can be told from all others."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT = 64, 48


def picture(number: int) -> np.ndarray:
    """uint8 [H, W, 3]: a bar that grows, and noise."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:, : 1 + number % WIDTH] = (number * 2 % 255, 255 - number * 2 % 255, number * 7 % 255)
    pixels[: HEIGHT // 4] = np.random.default_rng(number).integers(0, 255, (HEIGHT // 4, WIDTH, 3))
    return pixels


def make_film(
    path: Path,
    codec: str = "libx264",
    frames: int = 60,
    times: Sequence[int] | None = None,
    b_frames: int = 2,
    turned: int = 0,
    options: dict[str, str] | None = None,
) -> Path:
    """25 frames a second, or shown at `times` in hundredths of a second; decoding can begin at each twelfth."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25 if times is None else 100, options=options or {})
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = 12, b_frames
        if turned:
            stream.set_display_rotation(turned)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 100)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number), "rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decoded(path: Path) -> list[np.ndarray]:
    """All frames, one after the other, by PyAV alone."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
