"""What an evaluation leaves: figures, a line for each question, a table for people, and the folder for all of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.core.errors import OutputError, Problem, StorageError
from tunesmith.core.files import write_atomically, write_json

__all__ = ["METRICS", "QUESTIONS", "Evaluation", "folder_for_results"]

METRICS, QUESTIONS = "metrics.json", "questions.jsonl"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`metrics`: one JSON object. `questions`: what is known of each question, as plain values. `table`: lines for a
    terminal. `files`: further files, by name."""

    metrics: Mapping[str, Any]
    questions: Sequence[Mapping[str, Any]]
    table: Sequence[str]
    files: Mapping[str, str] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Raises StorageError where the files cannot be written."""
        lines = (json.dumps(question, ensure_ascii=False) + "\n" for question in self.questions)
        try:
            for name, text in {QUESTIONS: "".join(lines), **self.files}.items():
                write_atomically(folder / name, text)
            write_json(folder / METRICS, self.metrics)
        except OSError as error:
            raise _not_written(folder, error) from error


@contextmanager
def folder_for_results(save_dir: str | None) -> Iterator[Path | None]:
    """A new folder, so that results of two evaluations are never mixed. It is made at once, because what is wrong with
    it should not be found at the end; where nothing came into it, it goes.

    Raises OutputError where it is there, StorageError where it cannot be made."""
    if save_dir is None:
        yield None
        return
    folder = Path(save_dir).expanduser()
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        what = "the folder for results is there already"
        raise OutputError(Problem("E-EVAL-006", what, "save_dir", str(folder), "name a new folder")) from error
    except OSError as error:
        raise _not_written(folder, error) from error
    try:
        yield folder
    finally:
        with suppress(OSError):  # it holds something
            folder.rmdir()


def _not_written(folder: Path, error: OSError) -> StorageError:
    what = f"the results cannot be written: {error.strerror or error}"
    return StorageError(Problem("E-EVAL-007", what, str(folder), fix="name another save_dir"))
