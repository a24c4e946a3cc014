"""The log of a run as lines for people, and followed while it grows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tunesmith.train.callbacks.log_lines import Line

__all__ = ["follow", "line_text"]

_SHOWN = {
    "loss": "loss {:.4f}",
    "lr": "lr {:.2e}",
    "grad_norm": "norm {:.3g}",
    "tokens_per_second": "{:,.0f} tok/s",
}
_NOT_SHOWN = ("eval_tokens",)
_WAIT = 0.5  # seconds between two looks at the file


def line_text(line: Line) -> str:
    """`step 20/100  loss 1.2345  lr 9.00e-05  norm 0.81  2,049 tok/s  0:03:48 left`"""
    parts = [f"step {line['current_steps']}/{line.get('total_steps', '?')}"]
    parts += [text.format(line[key]) for key, text in _SHOWN.items() if isinstance(line.get(key), int | float)]
    held_out = {key: value for key, value in line.items() if key.startswith("eval_") and key not in _NOT_SHOWN}
    parts += [f"{key} {value:.4f}" for key, value in held_out.items() if isinstance(value, int | float)]
    if "loss" in line and line.get("remaining_time"):
        parts.append(f"{line['remaining_time']} left")
    return "  ".join(parts)


def follow(log: Path, goes_on: Callable[[], bool], at: int = 0, wait: float = _WAIT) -> Iterator[bytes]:
    """What is written into the file from byte `at` on, in whole lines, until the run does not go on. A file that is
    begun anew is read from its start."""
    inode = None
    while True:
        last_look = not goes_on()  # before the look: what is written in between is found by the next one
        if log.exists():
            with log.open("rb") as file:
                status = os.fstat(file.fileno())
                if (inode is not None and status.st_ino != inode) or status.st_size < at:
                    at = 0
                inode = status.st_ino
                file.seek(at)
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            at += len(whole)
            if whole:
                yield whole
        if last_look:
            return
        time.sleep(wait)
