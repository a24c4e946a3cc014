"""Files of media: opened with care, bounded in size, told apart by a digest."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias

from tunesmith.core.disk import refusal
from tunesmith.media.faults import fault, too_large

__all__ = ["HEAD", "State", "digest_of", "head_of", "opened", "read_whole", "state_of", "states_of"]

State: TypeAlias = tuple[int, int]
"""Bytes of a file, and the time of its last change in ns; of one that is not there, what no file has."""
HEAD = 4096
"""Bytes that tell what a file is."""
_HASHED_WHOLE = 64 << 20
_PIECE = 1 << 20


@contextmanager
def opened(path: str | Path) -> Iterator[tuple[BinaryIO, int]]:
    """An ordinary file and its size in bytes. Raises DataError where there is none (E-MEDIA-010) or where it cannot be
    read (E-MEDIA-011); what the disk itself says travels."""
    try:
        # A pipe would wait for its other end.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (FileNotFoundError, NotADirectoryError):
        raise fault("E-MEDIA-010", "there is no such file", path, fix="check the path, and media_dir") from None
    except (OSError, ValueError) as error:
        if refusal(error):
            raise
        why = getattr(error, "strerror", None) or str(error)
        raise fault("E-MEDIA-011", "the file cannot be read", path, why, "check the path and its rights") from None
    try:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            got = "a folder" if stat.S_ISDIR(facts.st_mode) else "a device or a pipe"
            raise fault("E-MEDIA-011", "this is no file", path, got, "give the path of a file")
        with os.fdopen(handle, "rb", closefd=False) as file:
            yield file, facts.st_size
    finally:
        os.close(handle)


def state_of(path: str | Path) -> State:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return -1, -1
    return found.st_size, found.st_mtime_ns


def states_of(source: str | bytes | Sequence[str | bytes]) -> list[State]:
    """Those of all files of a settled medium: one, a list of frames, or all in a folder."""
    if isinstance(source, bytes):
        return []
    if not isinstance(source, str):
        return [state_of(one) for one in source if isinstance(one, str)]
    inside = sorted(Path(source).iterdir()) if os.path.isdir(source) else []
    return [state_of(source), *map(state_of, inside)]


def head_of(path: str | Path) -> bytes:
    """The first bytes. Raises DataError like `opened`."""
    with opened(path) as (file, _):
        return file.read(HEAD)


def read_whole(path: str | Path, most_bytes: int) -> bytes:
    """All of it. Raises DataError like `opened`, and for a larger file (E-MEDIA-016)."""
    with opened(path) as (file, size):
        if size > most_bytes:
            raise too_large(path, f"the file has more than {most_bytes:,} bytes", f"{size:,} bytes")
        return file.read(most_bytes)


def digest_of(path: str | Path) -> str:
    """SHA-256 of a file; of a large one of its size and of 64 pieces of 1 MiB spread over it, from its first byte to
    its last. Raises DataError like `opened`."""
    digest = hashlib.sha256()
    with opened(path) as (file, size):
        if size <= _HASHED_WHOLE:
            while piece := file.read(_PIECE):
                digest.update(piece)
            return digest.hexdigest()
        digest.update(str(size).encode())
        for number in range(64):
            file.seek((size - _PIECE) * number // 63)
            digest.update(file.read(_PIECE))
        return digest.hexdigest()
