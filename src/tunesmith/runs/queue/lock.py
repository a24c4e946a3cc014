"""Locks of the operating system: they end with the last process that holds the file open, however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunesmith.core.errors import MachineError, Problem

__all__ = ["Lock", "hold", "is_held"]

_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}
_STEP = 0.02  # seconds between two tries


class Lock:
    """An exclusive lock on a file (flock(2)). A child process that is given `fileno` holds it too, which is why it is
    not `filelock`: the lock of a job has to outlive whoever took it, as long as the run itself lives."""

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.path = path
        self._create = create
        self._file: int | None = None

    def take(self, wait: float = 0.0) -> bool:
        """Try for `wait` seconds. Raises FileNotFoundError without a file and `create`, MachineError without locks."""
        assert self._file is None, "taken twice"
        file = os.open(self.path, os.O_RDWR | (os.O_CREAT if self._create else 0), 0o600)
        last = time.monotonic() + wait
        while not _try(file, fcntl.LOCK_EX, self.path):
            if time.monotonic() >= last:
                os.close(file)
                return False
            time.sleep(_STEP)
        self._file = file
        return True

    def drop(self) -> None:
        """Let go. Children that were given the file still hold it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def fileno(self) -> int:
        assert self._file is not None, "not taken"
        return self._file


def _try(file: int, kind: int, path: Path) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        os.close(file)
        if error.errno not in _NO_LOCKS:
            raise
        what = f"the file system has no locks: {error.strerror}"
        fix = "set TUNESMITH_HOME to a folder on a local disk"
        raise MachineError(Problem("E-QUEUE-006", what, str(path), fix=fix)) from error
    return True


def is_held(path: Path) -> bool:
    """Whether somebody has taken it. Any number may look at once, and none is taken for a holder."""
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    free = _try(file, fcntl.LOCK_SH, path)
    os.close(file)
    return not free


@contextmanager
def hold(path: Path) -> Iterator[bool]:
    """Take it if it is free. Within: whether it is ours."""
    lock = Lock(path)
    taken = lock.take()
    try:
        yield taken
    finally:
        lock.drop()
