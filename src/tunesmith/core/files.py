"""Files that are whole or not there: written beside their place, put on the disk, then renamed; and locks of files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunesmith.core.log import get_logger
from tunesmith.core.process import is_running

__all__ = ["QUIETLY", "fsync", "locked", "read_json", "remove_drafts", "write_atomically", "write_json"]

_DRAFT = re.compile(r"\..+\.(\d+)\.draft")
QUIETLY = 2.0
"""Seconds of waiting for a lock before it is said."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file. A reader, and whoever comes after a crash, finds the old content or the new one, never a part."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    fsync(path.parent)


def remove_drafts(folder: Path) -> None:
    """Delete what processes that are gone had begun to write here with `write_atomically`."""
    for draft in folder.glob(".*.draft"):
        match = _DRAFT.fullmatch(draft.name)
        if match and draft.is_file() and not is_running(int(match[1])):
            draft.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON document for people too: indented, characters as they are."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The document, or None where there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def fsync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:
        if path.is_dir():  # systems that do not open folders (Windows) keep names by themselves
            return
        raise
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path, doing: str) -> Iterator[None]:
    """Hold the lock of a file. Whoever waits for long is told what another process is `doing`; a signal ends the wait.

    Raises OSError where the file cannot be made.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=QUIETLY)
    except Timeout:
        get_logger().info("waiting for another process that is %s (%s)", doing, path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
