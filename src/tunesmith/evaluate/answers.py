"""Answers that are kept one by one while a prediction runs, so that one that was interrupted goes on behind them.

They lie in a folder of the run until all are there: `of.json` tells what they are answers to (the weights, the data,
how tokens are drawn), and each process appends lines to a file of its own. What another process, or another number of
processes, has answered before is not asked again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tunesmith.core.errors import Problem, StorageError
from tunesmith.core.files import read_json, write_json
from tunesmith.core.log import get_logger

__all__ = ["FOLDER", "Answers", "claim", "not_written"]

FOLDER = ".predictions"
_OF = "of.json"


def claim(output_dir: Path, of: Mapping[str, Any]) -> None:
    """Make the folder ready for answers to `of` (plain values); those to something else go. For one process, before any
    of them opens it."""
    folder = output_dir / FOLDER
    known = read_json(folder / _OF)
    if known == of:
        return
    if isinstance(known, dict):
        changed = ", ".join(key for key, value in of.items() if known.get(key) != value)
        get_logger().info("predicting: the answers from before are to other questions, and all are asked: %s", changed)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_json(folder / _OF, of)


class Answers:
    """All answers that are there, and a file for those of this process. `rank`: which of the processes it is."""

    def __init__(self, output_dir: Path, rank: int) -> None:
        self._folder = output_dir / FOLDER
        self._path = self._folder / f"{rank}.jsonl"
        self._file: int | None = None
        self.known: dict[int, dict[str, Any]] = {}
        """By number of the row: what `add` was given. Those that other processes add later come with `read`."""
        self.read()

    def read(self) -> None:
        """Take in what all processes have written by now."""
        for path in sorted(self._folder.glob("*.jsonl")):
            self.known |= dict(_whole_lines(path.read_bytes())[0])

    def add(self, row: int, answer: dict[str, Any]) -> None:
        """Keep one answer: a line, in one write. Raises StorageError (E-TRAIN-093) where the disk does not take it."""
        line = json.dumps({"row": row, **answer}, ensure_ascii=False) + "\n"
        try:
            self._append(line.encode("utf-8"))
        except OSError as error:
            raise not_written(self._path, error) from error
        self.known[row] = answer

    def _append(self, line: bytes) -> None:
        if self._file is None:
            end = _whole_lines(self._path.read_bytes())[1] if self._path.exists() else 0
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.truncate(self._path, end)  # what a crash has torn
        rest = memoryview(line)
        while rest:  # the disk may take a part, and then tells that it is full
            rest = rest[os.write(self._file, rest) :]

    def __enter__(self) -> Answers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def not_written(path: Path, error: OSError) -> StorageError:
    what = f"predictions cannot be written: {error.strerror or error}"
    fix = "free some space and start the same run again: it goes on behind the rows that were answered"
    return StorageError(Problem("E-TRAIN-093", what, str(path), fix=fix))


def _whole_lines(content: bytes) -> tuple[Iterator[tuple[int, dict[str, Any]]], int]:
    """(row, answer) of each line up to the first that is torn, and where that one begins."""
    found, end = [], 0
    for line in content.splitlines(keepends=True):
        try:
            answer = json.loads(line)
            row = answer.pop("row")
        except (ValueError, KeyError, AttributeError):
            break
        if not line.endswith(b"\n"):
            break
        found.append((row, answer))
        end += len(line)
    return iter(found), end
