"""Media as data has them -> media as files on this machine that were looked at.

settler = Settler(media_dir, base_folder, blobs, fetcher)
settler.settle(Medium("image", "cats/1.jpg"))      # Medium("image", "/data/cats/1.jpg", MediaFacts(...))

Bytes, data: addresses and what is fetched become files of `blobs`, named by SHA-256.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from tunesmith.core.errors import DataError, UnavailableError
from tunesmith.core.types import MediaFacts, Medium, Modality
from tunesmith.media.audio import measure_audio
from tunesmith.media.faults import fault
from tunesmith.media.fetch import Fetcher, Media, Policy
from tunesmith.media.images import measure_image
from tunesmith.media.video import measure_video

__all__ = ["MEASURES", "MOST_FETCHED", "Settler"]

MEASURES: Mapping[Modality, Callable[[Any], MediaFacts]] = {
    "image": measure_image,
    "video": measure_video,
    "audio": measure_audio,
}
_REMEMBERED = 4096
MOST_FETCHED = 1_000_000_000
"""Bytes of an address, for data of the user's own."""
_SECONDS = 120.0
_ADDRESS = re.compile(r"(data|https?|file):", re.IGNORECASE)
_OTHER_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class Gets(Protocol):
    def get(self, url: str) -> Media: ...


class Settler:
    """`media_dir` and `base_folder`: where relative paths begin, in this order. `blobs`: a folder for bytes.
    `fetcher`: the way to addresses; without one, the guard's, to all that is public, unless `offline`. `paths`: whether
    media may be files of this machine, which is not for clients of a server to say."""

    def __init__(
        self,
        media_dir: str | Path | None,
        base_folder: str | Path | None,
        blobs: str | Path,
        fetcher: Gets | None = None,
        *,
        paths: bool = True,
        offline: bool = False,
    ) -> None:
        self._folders = [Path(folder).expanduser().absolute() for folder in (media_dir, base_folder) if folder]
        self._blobs = Path(blobs).absolute()
        self._fetcher = fetcher or Fetcher(Policy(remote=not offline, most_bytes=MOST_FETCHED, total_seconds=_SECONDS))
        self._paths = paths
        self._known: dict[tuple[str, str], Medium] = {}

    def settle(self, medium: Medium) -> Medium:
        """The medium as a file with its facts; one that has facts comes back as it is.

        Raises DataError with one Problem for what is not there, not of its kind, damaged or too large, and for an
        address that is refused or gives nothing.
        """
        if medium.facts is not None:
            return medium
        if isinstance(medium.source, tuple):
            return self._measured(medium, tuple(self._file(one) for one in medium.source))
        if isinstance(medium.source, bytes):
            return self._measured(medium, self._file(medium.source))
        key = (medium.kind, medium.source)
        if (known := self._known.get(key)) is not None:
            return known
        settled = self._measured(medium, self._file(medium.source))
        if len(medium.source) < 4096:  # not a whole picture in an address
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = settled
        return settled

    def _measured(self, medium: Medium, found: str | tuple[str, ...]) -> Medium:
        if not isinstance(found, str) and medium.kind != "video":
            raise fault("E-MEDIA-011", "only a video may be a list of files", ", ".join(found), f"{len(found)} files")
        return replace(medium, source=found, facts=MEASURES[medium.kind](found))

    def _file(self, source: str | bytes) -> str:
        """The absolute path of a file or a folder."""
        if isinstance(source, bytes):
            return self._blob(source)
        scheme = match[1].lower() if (match := _ADDRESS.match(source)) else ""
        if scheme == "data":
            return self._blob(self._fetched(source))
        if scheme in ("http", "https"):
            return self._from_address(source)
        if not self._paths:
            raise fault("E-MEDIA-011", "files of this machine are not read here", source, fix="send its bytes")
        if scheme == "file":
            return self._found(unquote(urlsplit(source).path))
        if _OTHER_SCHEME.match(source):
            raise fault("E-MEDIA-010", "addresses of this kind are not read", source, fix="use https, or a path")
        return self._found(source)

    def _found(self, name: str) -> str:
        tried = [Path(os.path.abspath(folder / name)) for folder in (self._folders or [Path.cwd()])]
        for path in tried:
            try:
                if path.exists():
                    return str(path)
            except (OSError, ValueError) as error:
                got = getattr(error, "strerror", None) or str(error)
                raise fault("E-MEDIA-011", "this is no path of a file", name, got, "check the path") from None
        places = ", ".join(dict.fromkeys(map(str, tried)))
        raise fault("E-MEDIA-010", "there is no such file", name, f"looked for {places}", "check it, and media_dir")

    def _from_address(self, url: str) -> str:
        """What was once fetched from an address is not fetched again."""
        note = self._blobs / "addresses" / hashlib.sha256(url.encode()).hexdigest()
        if note.is_file() and (path := self._blobs / note.read_text(encoding="ascii")).is_file():
            return str(path)
        blob = self._blob(self._fetched(url))
        _write(note, Path(blob).name.encode())
        return blob

    def _fetched(self, url: str) -> bytes:
        try:
            return self._fetcher.get(url).data
        except UnavailableError as error:  # of one row, like all that is wrong with a medium
            raise DataError(error.problems) from error

    def _blob(self, data: bytes) -> str:
        path = self._blobs / hashlib.sha256(data).hexdigest()
        if not path.is_file() or path.stat().st_size != len(data):
            _write(path, data)
        return str(path)


def _write(path: Path, data: bytes) -> None:
    """Whole or not there. What a loss of power leaves of it has another size, and is written again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.draft")
    try:
        draft.write_bytes(data)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
