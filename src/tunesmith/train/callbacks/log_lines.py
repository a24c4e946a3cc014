"""Reading `trainer_log.jsonl`, also while a run writes it. Nothing heavy is imported."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["Line", "Series", "last_lines", "parse_lines", "read_lines", "series"]

Line = dict[str, Any]
Series = list[tuple[int, float]]
"""(step, value), in the order of steps."""

_PLACE = {"current_steps", "total_steps", "epoch", "percentage", "elapsed_time", "remaining_time"}


def read_lines(log: Path) -> list[Line]:
    """All events; none where there is no file."""
    try:
        return parse_lines(log.read_bytes())
    except FileNotFoundError:
        return []


def last_lines(log: Path, most_bytes: int = 1 << 16) -> list[Line]:
    """The events at the end of the file."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - most_bytes))
            return parse_lines(file.read())
    except FileNotFoundError:
        return []


def parse_lines(text: bytes) -> list[Line]:
    """Lines that hold an event. One that is torn (its beginning or its end is not there) is left out."""
    found = []
    for line in text.split(b"\n"):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and isinstance(value.get("current_steps"), int):
            found.append(value)
    return found


def series(lines: Iterable[Line]) -> dict[str, Series]:
    """The curve of every number that is logged. After a resume a step may be logged twice: the later line counts."""
    found: dict[str, dict[int, float]] = {}
    for line in lines:
        for key, value in line.items():
            if key not in _PLACE and isinstance(value, int | float):
                found.setdefault(key, {})[line["current_steps"]] = float(value)
    return {key: sorted(values.items()) for key, values in found.items()}
