"""How far a preparation is, on the disk, so that the next process goes on there after a kill, a full disk or a crash.

An entry is written after a block of rows: first the files are synced, then the journal is replaced as a whole. So what
it tells is there, and what lies behind it in the files is cut off by who goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from tunesmith.core.files import read_json, write_atomically
from tunesmith.data.store import GrowingFiles

__all__ = ["Journal"]

_NAME = ".journal.json"
EVERY = 2.0
"""Seconds between two entries, at least."""
SHARE = 0.01
"""Of the time, at most, that waiting for the disk may take: on a slow one entries are further apart."""


class Journal:
    """The journal of one folder, with at most one entry: plain values, and the size of each file that was growing."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        self._next = monotonic() + EVERY

    def read(self) -> dict[str, Any] | None:
        """The entry, if there is one and the files hold at least as much as it says; what does not fit is removed."""
        entry: dict[str, Any] | None = read_json(self._path)
        if entry is not None and all(self._holds(name, size) for name, size in entry["sizes"].items()):
            return entry
        self.remove()
        return None

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)

    @property
    def is_due(self) -> bool:
        return monotonic() >= self._next

    def write(self, entry: Mapping[str, Any], files: GrowingFiles) -> None:
        """Sync the files and tell how long they are, with the `entry`."""
        begin = monotonic()
        content = {**entry, "sizes": files.sync()}
        write_atomically(self._path, json.dumps(content))  # ASCII: a row may hold half a surrogate pair
        end = monotonic()
        self._next = end + max(EVERY, (end - begin) / SHARE)

    def _holds(self, name: str, size: int) -> bool:
        path = self._path.with_name(name)
        return path.is_file() and path.stat().st_size >= size
