"""Films as packets: when their frames are shown and where decoding can begin, without decoding; and how to come to one
of them with as little decoding as there can be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.media.faults import damaged, fault, not_installed, not_of_its_kind, too_large
from tunesmith.media.files import head_of, opened
from tunesmith.media.kinds import described

__all__ = ["DEMUXERS", "MOST_FRAMES", "Player", "Scan", "opened_film", "scan"]

MOST_FRAMES = 2_000_000
"""Nine hours of 60 frames a second; files with more packets are not gone through."""
_MAY_LACK = 0.1  # of the time that a file promises; and what two frames take, and a quarter of a second

# Types of files, and the one reader of FFmpeg that may see each: others follow addresses and names in a file.
DEMUXERS = {
    "video/mp4": "mov",
    "video/webm": "matroska",
    "video/x-msvideo": "avi",
    "image/gif": "gif",
    "audio/mp4": "mov",
    "audio/aac": "aac",
}


@contextmanager
def opened_film(path: str | Path, kind: str) -> Iterator[Any]:
    """A container of PyAV that is open for reading. `kind`: "video" or "audio", for messages.

    Raises DataError for what is not of that kind (E-MEDIA-012), and for all that FFmpeg says of the file (E-MEDIA-014).
    """
    got = described(head_of(path))
    if got not in DEMUXERS or (kind == "audio" and got.startswith("image/")):
        raise not_of_its_kind(path, kind, got)
    try:
        import av
    except ImportError as error:
        raise not_installed(error) from error
    try:
        options = {"protocol_whitelist": "file"}
        with av.open(str(path), "r", format=DEMUXERS[got], options=options, metadata_errors="replace") as container:
            yield container
    except av.error.FFmpegError as error:
        raise damaged(path, error) from error


@dataclass(frozen=True, slots=True)
class Scan:
    """When frames are shown [N] and which of those decoding can begin at [K], ascending, in the stream's time base."""

    times: npt.NDArray[np.int64]
    keys: npt.NDArray[np.int64]


def scan(container: Any, stream: Any, path: str | Path) -> Scan:
    """Raises DataError for a film that ends before it says so, or within a packet (E-MEDIA-014), without frames
    (E-MEDIA-020), or with more than MOST_FRAMES packets (E-MEDIA-016)."""
    with opened(path) as (file, size):
        head = file.read(8)
    if head.startswith(b"RIFF") and (told := int.from_bytes(head[4:], "little") + 8) > size + 1:
        raise damaged(path, f"{size:,} of {told:,} bytes")  # an AVI has no other length that could be believed
    times, keys, end = [], [], 0.0
    for packet in container.demux([*container.streams.video, *container.streams.audio]):
        time = packet.pts if packet.pts is not None else packet.dts
        if packet.size == 0 or time is None:
            continue
        if packet.is_corrupt:
            raise damaged(path, "it ends within a packet")
        end = max(end, float((time + (packet.duration or 0)) * packet.time_base))
        if packet.stream.index != stream.index or packet.is_discard:
            continue
        times.append(time)
        if packet.is_keyframe:
            keys.append(time)
        if len(times) > MOST_FRAMES:
            raise too_large(path, f"the video has more than {MOST_FRAMES:,} frames", f"{len(times):,} so far")
    if not times:
        raise fault("E-MEDIA-020", "the video has no frames", path, "0 frames")
    seconds = (container.duration or 0) / 1_000_000
    lacking = seconds - (end - (container.start_time or 0) / 1_000_000)
    if lacking > _MAY_LACK * seconds + 2 / float(stream.average_rate or 10) + 0.25:
        raise damaged(path, f"of {seconds:.1f} seconds the last {lacking:.1f} are missing")
    return Scan(np.unique(np.array(times, np.int64)), np.unique(np.array(keys or times[:1], np.int64)))


class Player:
    """Frames of a film at ascending times. Where decoding can begin between where it is and where it should be, it
    jumps there, so that between two wanted frames no more is decoded than what the second one is made from."""

    def __init__(self, container: Any, stream: Any, keys: Sequence[int] | npt.NDArray[np.int64]) -> None:
        import av

        self._no_seeking = av.error.FFmpegError
        self._container, self._stream, self._keys = container, stream, np.asarray(keys)
        self._decoded: Iterator[Any] = container.decode(stream)
        self._shown: Any = None
        self._ahead: Any = None
        self.decoded = 0
        """Frames decoded so far."""

    def at(self, time: int) -> Any | None:
        """The frame that is shown at a time: the last that begins at it or before, or the first of all. None where none
        can be decoded."""
        key = int(np.searchsorted(self._keys, time, side="right")) - 1
        if key > 0 and self._keys[key] > self._place():
            while not self._jump(key) and key > 0:  # it may come out behind, where frames are stored in another order
                key -= 1
        self._advance(time)
        return self._shown if self._shown is not None else self._ahead

    def _place(self) -> int:
        """The latest time that was decoded."""
        frame = self._ahead if self._ahead is not None else self._shown
        return _time(frame) if frame is not None else int(self._keys[0]) - 1

    def _jump(self, key: int) -> bool:
        """Whether the next frame is the one of this key, or one before it."""
        try:
            self._container.seek(int(self._keys[key]), stream=self._stream)
        except self._no_seeking:  # it goes on from where it is, which takes longer
            return True
        self._decoded, self._shown, self._ahead = self._container.decode(self._stream), None, None
        self._ahead = self._next()
        return self._ahead is not None and _time(self._ahead) <= self._keys[key]

    def _advance(self, time: int) -> None:
        while self._shown is None or _time(self._shown) < time:
            frame = self._ahead if self._ahead is not None else self._next()
            if frame is None or _time(frame) > time:
                self._ahead = frame
                return
            self._shown, self._ahead = frame, None

    def _next(self) -> Any | None:
        for frame in self._decoded:
            self.decoded += 1
            if frame.pts is not None or frame.dts is not None:
                return frame
        return None


def _time(frame: Any) -> int:
    return int(frame.pts if frame.pts is not None else frame.dts)
