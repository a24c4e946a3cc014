"""The shim of this folder: compiled once, loaded into the fork server, armed in a child for one folder.

`shim.c` counts every call that changes the folder; what is to happen at which of them is told here by name.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FULL_DISK", "Arm", "Point", "arm", "build", "compiler", "read_journal", "shift_clock"]

SOURCE = Path(__file__).with_name("shim.c")
CREATE, WRITE, SYNC, RENAME, REMOVE = 1, 2, 4, 8, 16
ACTIONS = {"nothing": 0, "kill": 1, "tear": 2, "fail": 3, "term": 4}
FULL_DISK = {
    "ENOSPC": CREATE | WRITE | SYNC,
    "EDQUOT": CREATE | WRITE | SYNC,
    "EIO": CREATE | WRITE | SYNC,
    "EROFS": CREATE | WRITE | SYNC | RENAME | REMOVE,
}
"""Which kinds of calls a disk refuses with which error. A full one still lets names be changed and taken away."""


@dataclass(frozen=True, slots=True)
class Arm:
    """What happens to calls that change `root`: `action` at call number `at` (1 is the first), with `error` by name.

    `journal` names a file for what was done, `kept` a folder in the same file system that holds every file made.
    """

    root: str
    at: int = 0
    action: str = "nothing"
    error: str = ""
    journal: str = ""
    kept: str = ""


@dataclass(frozen=True, slots=True)
class Point:
    """A call that was made: its number, what it did, the inode and size after it (0: it is gone), and the paths."""

    number: int
    call: str
    inode: int
    size: int
    path: str
    other: str


def compiler() -> str | None:
    return shutil.which("cc")


def build(folder: Path) -> Path:
    """The shared library, made in `folder` unless it is there."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    target = folder / f"shim-{digest}.so"
    if not target.exists():
        draft = target.with_suffix(f".{os.getpid()}")
        command = [compiler() or "cc", "-shared", "-fPIC", "-O1", "-o", str(draft), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True, capture_output=True)
        draft.rename(target)
    return target


def arm(told: Arm) -> None:
    """Arm this process. Raises OSError where the journal cannot be made."""
    failing = FULL_DISK.get(told.error, 0)
    number = getattr(errno, told.error) if told.error else 0
    texts = [text.encode() for text in (told.root, told.journal, told.kept)]
    found = ctypes.CDLL(None).faults_arm(
        texts[0], ctypes.c_long(told.at), ACTIONS[told.action], number, failing, texts[1], texts[2]
    )
    if found:
        raise OSError(found, os.strerror(found), told.journal)


def shift_clock(seconds: float) -> None:
    """Move the wall clock of this process; monotonic clocks stay."""
    ctypes.CDLL(None).faults_clock(ctypes.c_double(seconds))


def read_journal(path: Path) -> list[Point]:
    points = []
    for line in path.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        number, call, inode, size, first, second = line.split("\t")
        points.append(Point(int(number), call, int(inode), int(size), first, second))
    return points
