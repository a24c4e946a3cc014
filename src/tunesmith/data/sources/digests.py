"""Fingerprints of files, remembered: a file of gigabytes is not read again to learn that it is the same."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from tunesmith.core import env

__all__ = ["digest_of_file", "mark_of", "write_whole"]

# A file that changed this short a time ago can change once more within the same tick of its clock, so that its times
# would not tell. Two seconds is the coarsest clock of a file system in use (FAT).
_STILL_WARM_NS = 2_000_000_000
_MARKED = 1 << 16  # bytes at each end of a file


def digest_of_file(path: Path) -> str:
    """BLAKE2b of the bytes, in hex. It is remembered by place, size, times and inode."""
    memo = _memo(path)
    before = _state(path)
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # no memo, or one that is damaged
        known = json.loads(memo.read_text("utf-8"))
        if known["state"] == before and isinstance(known["digest"], str):
            return known["digest"]
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=20)).hexdigest()
    changed = max(before[1:3])
    if _state(path) == before and time.time_ns() - changed > _STILL_WARM_NS:
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not correctness
            write_whole(memo, json.dumps({"path": str(path), "state": before, "digest": digest}))
    return digest


def mark_of(blob: Any) -> str:
    """What tells, without reading a file whole, that it is not the file that it was: its version where it is remote,
    else its size and a digest of its beginning and end. `blob` may be packed, or a member of an archive."""
    while (inner := getattr(blob, "inner", None)) is not None:
        blob = inner
    if blob.path is None:
        return str(getattr(blob, "version", None) or getattr(blob, "sha", ""))
    size = blob.path.stat().st_size
    with blob.path.open("rb") as handle:
        ends = handle.read(_MARKED)
        handle.seek(max(0, size - _MARKED))
        ends += handle.read(_MARKED)
    return f"{size}:{hashlib.blake2b(ends, digest_size=12).hexdigest()}"


def _state(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]


def _memo(path: Path) -> Path:
    name = hashlib.blake2b(os.fsencode(path.resolve()), digest_size=16).hexdigest()
    return env.data_cache_dir() / "digests" / f"{name}.json"


def write_whole(target: Path, text: str) -> None:
    """Write a file all or not at all, also when two runs write it at once."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=target.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(draft, target)
    except OSError:
        os.unlink(draft)
        raise
