"""Room on the disk that is held for a checkpoint: a file of that size, which is given up when the disk is full."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["NAME", "Reserve"]

NAME = ".reserve"
_BLOCK = 2**20


class Reserve:
    """`size` bytes in `folder`; 0 holds nothing, and removes what an earlier run has held."""

    def __init__(self, folder: Path, size: int) -> None:
        self._file, self._size = folder / NAME, size

    def hold(self) -> None:
        """Take the room, unless it is held. Raises OSError where there is not as much."""
        if not self._size:
            self.release()
            return
        if self._file.exists() and self._file.stat().st_size == self._size:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._file.open("wb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, self._size)
                    return
                for start in range(0, self._size, _BLOCK):  # bytes that a file system cannot leave out
                    file.write(os.urandom(min(_BLOCK, self._size - start)))
        except OSError:
            self.release()
            raise

    def hold_again(self) -> None:
        """The same where there is room; without a word where there is none."""
        with suppress(OSError):
            self.hold()

    def release(self) -> bool:
        """Give the room up; whether there was any."""
        try:
            self._file.unlink()
        except FileNotFoundError:
            return False
        return True
