"""A remote file to a copy on this machine. One that was interrupted goes on where it was."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from tunesmith.core.errors import Problem, StorageError
from tunesmith.core.files import fsync, locked, read_json, write_json
from tunesmith.core.log import get_logger
from tunesmith.data.sources.decode import BLOCK

__all__ = ["fetch"]

SYNC_EVERY = 64_000_000
"""Bytes after which what was fetched is put on the disk, and counts after a crash of the machine."""


def fetch(
    name: str, opened: Callable[[], BinaryIO], read: Callable[[BinaryIO, int], bytes], target: Path, *, again: bool
) -> None:
    """Copy what `opened()` gives, by `read(stream, bytes)`, to `target`, which is whole or not there. Processes that
    need it at once wait for each other. `again`: nothing tells whether what was fetched before is of the same file, so
    that it is fetched from its beginning, also where `target` is there.

    Raises StorageError (E-DATA-120) where the disk does not take it, and what `opened` and `read` raise.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(f".{target.name}.lock"), f"fetching {name}"):
            if again or not target.is_file():
                _fetch(name, opened, read, target, again)
    except OSError as error:
        what = f"a file that is fetched cannot be written: {error.strerror or error}"
        fix = "free some space, or set TUNESMITH_DATA_CACHE to a folder on another disk; fetching goes on where it was"
        raise StorageError(Problem("E-DATA-120", what, str(target), name, fix)) from error


def _fetch(
    name: str, opened: Callable[[], BinaryIO], read: Callable[[BinaryIO, int], bytes], target: Path, again: bool
) -> None:
    part, mark = target.with_name(f".{target.name}.part"), target.with_name(f".{target.name}.json")
    with opened() as stream, part.open("ab") as out:
        before = read_json(mark)
        resumes = not again and isinstance(before, int) and before <= out.tell() and stream.seekable()
        done = before if resumes else 0
        mark.unlink(missing_ok=True)
        out.truncate(done)
        out.seek(done)
        if done:
            get_logger().info("fetching %s: %.1f MB were fetched before", name, done / 1e6)
            stream.seek(done)
        synced = done
        try:
            while block := read(stream, BLOCK):
                out.write(block)
                done += len(block)
                if done - synced >= SYNC_EVERY:
                    synced = _sync(out, mark, done)
            _sync(out, mark, done)
        except BaseException:
            with suppress(OSError):
                _sync(out, mark, done)
            raise
    os.replace(part, target)
    fsync(target.parent)
    mark.unlink()


def _sync(out: BinaryIO, mark: Path, done: int) -> int:
    out.flush()
    os.fsync(out.fileno())
    write_json(mark, done)
    return done
