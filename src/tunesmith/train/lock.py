"""One run at a time in a folder: a lock of the system, which ends with its process, and a file that says whose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tunesmith.core.errors import Problem, UsageError
from tunesmith.core.files import read_json, write_json
from tunesmith.core.log import is_main_process
from tunesmith.core.process import ProcessId

__all__ = ["HOLDER", "hold", "holder"]

HOLDER = "run.lock"
"""Tells, as JSON, which process trains in the folder."""
_LOCK = ".run.lock"


def holder(output_dir: Path) -> ProcessId | None:
    """The process that says it trains here, whether it still runs or not."""
    try:
        return ProcessId.from_dict(read_json(output_dir / HOLDER))
    except (KeyError, TypeError, ValueError):
        return None


@contextmanager
def hold(output_dir: Path) -> Iterator[None]:
    """Keep others out while this runs. A folder that is made for it and holds nothing else in the end is removed.

    Raises UsageError where another run holds it. A lock whose process was killed is free.
    """
    if not is_main_process():
        yield
        return
    from filelock import FileLock, Timeout

    new = [folder for folder in (output_dir, *output_dir.parents) if not folder.exists()]
    output_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output_dir / _LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        found = holder(output_dir)
        got = str(found) if found is not None else None
        what = "another run trains in this folder"
        fix = "wait for it, stop it, or choose another output_dir"
        raise UsageError(Problem("E-TRAIN-082", what, f"output_dir: {output_dir}", got, fix)) from error
    try:
        write_json(output_dir / HOLDER, ProcessId.of().to_dict())
        yield
    finally:
        with suppress(OSError):  # a disk that fails by now: the lock ends with the process
            _leave(output_dir, new)
        lock.release()


def _leave(output_dir: Path, new: list[Path]) -> None:
    (output_dir / HOLDER).unlink(missing_ok=True)
    if new and [file.name for file in output_dir.iterdir()] == [_LOCK]:
        (output_dir / _LOCK).unlink()
        for folder in new:
            if not any(folder.iterdir()):
                folder.rmdir()
