"""Media of a sample as people look at them: which file, how large it is and how large to the model, which tokens."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import DataError
from tunesmith.core.types import Medium, Placed
from tunesmith.media.images import read_rgb
from tunesmith.media.limits import MediaLimits
from tunesmith.media.sizes import Size
from tunesmith.media.video import read_video

if TYPE_CHECKING:
    from tunesmith.media.processor import Media

__all__ = ["ShownMedium", "Thumbnail", "mark", "show_media", "thumbnails"]

SIDE = 240
"""Pixels of the longer side of a thumbnail, at most."""
_SMALL = 96
"""A smaller picture is drawn as large, by whole pixels."""
_NO_SIZE = Size()


def mark(placed: Placed) -> str:
    """What is shown for all tokens of a medium together."""
    return f"[{placed.medium.kind} {placed.end - placed.start:,} tokens]"


@dataclass(frozen=True, slots=True)
class ShownMedium:
    """`given`: its size when the model's processor gets it; `tensors`: names and shapes of what the model then gets.
    Tokens [start, end) stand for it. `cut`: they lie behind cutoff_len."""

    medium: Medium
    start: int
    end: int
    given: Size = _NO_SIZE
    tensors: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    cut: bool = False

    @property
    def tokens(self) -> int:
        return self.end - self.start

    @property
    def name(self) -> str:
        """Its file; of a list of frames the first."""
        source = self.medium.source
        if isinstance(source, tuple):
            return f"{source[0]!s} and {len(source) - 1:,} more" if len(source) > 1 else str(source[0])
        return str(source)

    @property
    def told(self) -> str:
        """`image, 640 x 480 pixels, 256 tokens`, and what becomes of it on the way to the model."""
        given = _given(self.medium, self.given)
        shapes = ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in self.tensors.items())
        count = f"{self.tokens:,} tokens" + (" behind cutoff_len" if self.cut else "")
        return f"{self.medium.kind}, {_measured(self.medium)}, {count}; its processor gets {given}, the model {shapes}"

    def to_dict(self) -> dict[str, Any]:
        facts = self.medium.facts
        assert facts is not None, "it was settled"
        size = self.given
        given = {"width": size.width, "height": size.height, "fps": size.fps, "samples": size.samples}
        given |= {"frames": len(size.frames)}
        source = list(self.medium.source) if isinstance(self.medium.source, tuple) else self.medium.source
        return {
            "kind": self.medium.kind,
            "source": source,
            **asdict(facts),
            "given": {name: value for name, value in given.items() if value},
            "tensors": {name: list(shape) for name, shape in self.tensors.items()},
            "start": self.start,
            "end": self.end,
            "tokens": self.tokens,
            "cut": self.cut,
        }


def _measured(medium: Medium) -> str:
    facts = medium.facts
    assert facts is not None, "it was settled"
    seconds = f"{facts.seconds:,.2f} s"
    if medium.kind == "audio":
        return seconds
    size = f"{facts.width:,} x {facts.height:,} pixels"
    if medium.kind == "image":
        return size
    times = f" at {facts.fps:.4g} a second, {seconds}" if facts.fps else ""
    return f"{size}, {facts.frames:,} frames{times}"


def _given(medium: Medium, size: Size) -> str:
    if medium.kind == "audio":
        return f"{size.samples:,} samples"
    frames = f"{len(size.frames):,} frames of " if medium.kind == "video" else ""
    return f"{frames}{size.width:,} x {size.height:,}"


def show_media(placed: Sequence[Placed], media: Media, length: int) -> tuple[ShownMedium, ...]:
    """`length`: tokens of the sample that are left. Nothing is decoded."""
    return tuple(
        ShownMedium(
            one.medium, one.start, one.end, media.size_of(one.medium), media.shapes_of(one.medium), one.end > length
        )
        for one in placed
    )


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small picture as a data: address, drawn `width` x `height`; or why there is none."""

    address: str = ""
    width: int = 0
    height: int = 0
    why: str = ""


def thumbnails(shown: Iterable[ShownMedium]) -> dict[str, Thumbnail]:
    """By the digest of a medium: of a video its first frame; a sound has none."""
    found: dict[str, Thumbnail] = {}
    for one in shown:
        facts = one.medium.facts
        if one.medium.kind != "audio" and facts is not None and facts.digest not in found:
            try:
                found[facts.digest] = _thumbnail(one.medium)
            except DataError as error:
                problem = error.problems[0]
                found[facts.digest] = Thumbnail(why=f"{problem.what} ({problem.got})")
    return found


def _thumbnail(medium: Medium) -> Thumbnail:
    """Raises DataError for what cannot be decoded. What the page gets is written by Pillow, never the file itself."""
    from PIL import Image

    assert medium.facts is not None, "it was settled"
    source = medium.source
    if medium.kind == "image":
        picture = read_rgb(str(source), medium.facts)
    else:
        paths = [str(one) for one in source] if isinstance(source, tuple) else str(source)
        frames, _ = read_video(paths, medium.facts, MediaLimits(video_maxlen=1, video_max_pixels=SIDE * SIDE))
        picture = Image.fromarray(frames[0])
    picture.thumbnail((SIDE, SIDE))
    is_small = max(picture.size) < _SMALL
    form, written = ("PNG" if is_small else "JPEG"), BytesIO()
    picture.save(written, form, quality=80)
    times = _SMALL // max(picture.size) if is_small else 1
    address = f"data:image/{form.lower()};base64,{b64encode(written.getvalue()).decode()}"
    return Thumbnail(address, picture.width * times, picture.height * times)
