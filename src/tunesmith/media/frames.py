"""Videos that come as pictures: a folder of them, or their paths."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from tunesmith.core.types import MediaFacts
from tunesmith.media.faults import fault, too_large
from tunesmith.media.images import measure_image

__all__ = ["MOST_PICTURES", "frame_paths", "measure_frames"]

MOST_PICTURES = 10_000
_NUMBERS = re.compile(r"(\d+)")


def frame_paths(source: str | Sequence[str]) -> list[str] | None:
    """The paths of frames, or of the files in a folder by name, numbers in names by their size; None for a file.

    Raises DataError for more than MOST_PICTURES (E-MEDIA-016).
    """
    if not isinstance(source, str):
        return _few(list(source), source[0] if source else "a list of frames")
    if not Path(source).is_dir():
        return None
    names = [path.name for path in Path(source).iterdir() if not path.name.startswith(".")]
    return [str(Path(source, name)) for name in sorted(_few(names, source), key=_by_numbers)]


def _few(names: list[str], where: str) -> list[str]:
    if len(names) > MOST_PICTURES:
        raise too_large(where, f"a video of more than {MOST_PICTURES:,} pictures", f"{len(names):,} pictures")
    return names


def _by_numbers(name: str) -> list[tuple[int, int, str]]:
    parts = _NUMBERS.split(name)
    return [(1, int(part), part) if number % 2 else (0, 0, part) for number, part in enumerate(parts)]


def measure_frames(paths: Sequence[str], where: str) -> MediaFacts:
    """They have no times: `fps` and `seconds` are 0.

    Raises DataError for none (E-MEDIA-020), for sizes that differ (E-MEDIA-021), and for what is wrong with one.
    """
    if not paths:
        raise fault("E-MEDIA-020", "the video has no frames", where, "0 pictures")
    digest, size = hashlib.sha256(), (0, 0)
    for path in paths:
        facts = measure_image(path)
        if size not in ((0, 0), (facts.width, facts.height)):
            got = f"{facts.width} x {facts.height} after {size[0]} x {size[1]}"
            raise fault("E-MEDIA-021", "the frames of a video differ in size", path, got)
        size = facts.width, facts.height
        digest.update(facts.digest.encode())
    return MediaFacts(*size, frames=len(paths), digest=digest.hexdigest())
