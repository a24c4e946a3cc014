"""What a running job can be asked: empty files in `.control/` of its output folder, made by whoever asks.

    save             a checkpoint after the step that is being made, and on
    stop             leave after that step, without a checkpoint
    stop-and-save    a checkpoint after that step, then leave; as SIGTERM, SIGUSR1 and the first SIGINT do

The job takes a file away when it does what it says.
"""

from __future__ import annotations

from enum import IntFlag
from pathlib import Path

__all__ = ["FOLDER", "REQUESTS", "Wanted", "ask", "asked", "clear", "wanted"]

FOLDER = ".control"


class Wanted(IntFlag):
    """What is asked for; two requests together are both."""

    NOTHING = 0
    SAVE = 1
    STOP = 2


REQUESTS: dict[str, Wanted] = {
    "save": Wanted.SAVE,
    "stop": Wanted.STOP,
    "stop-and-save": Wanted.SAVE | Wanted.STOP,
}


def ask(output_dir: str | Path, request: str) -> None:
    """Ask the job that runs in `output_dir`. Raises ValueError for what is none of REQUESTS, FileNotFoundError where
    there is no such folder."""
    if request not in REQUESTS:
        raise ValueError(f"{request!r} is none of {', '.join(REQUESTS)}")
    folder = Path(output_dir) / FOLDER
    folder.mkdir(exist_ok=True)
    (folder / request).touch()


def asked(output_dir: str | Path) -> str | None:
    """The request that waits there; `save` and `stop` together are `stop-and-save`."""
    found = wanted(output_dir)
    return next((name for name, one in REQUESTS.items() if one == found), None)


def wanted(output_dir: str | Path) -> Wanted:
    """All requests that wait there. Takes a few microseconds: a running job looks after every step."""
    folder, found = Path(output_dir) / FOLDER, Wanted.NOTHING
    if folder.is_dir():
        for name, one in REQUESTS.items():
            if (folder / name).exists():
                found |= one
    return found


def clear(output_dir: str | Path) -> None:
    """Take all requests away."""
    for name in REQUESTS:
        (Path(output_dir) / FOLDER / name).unlink(missing_ok=True)
