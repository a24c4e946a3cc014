"""Forget runs, and delete what they wrote."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from tunesmith.core.errors import Problem, UsageError
from tunesmith.runs import registry
from tunesmith.runs.row import Row

__all__ = ["bytes_of", "check_removable", "remove"]


def check_removable(rows: Sequence[Row], known: Sequence[Row], *, keep_files: bool) -> None:
    """Raises UsageError with every run that goes on, or whose folder holds more than the run: where the user is, the
    user's home, or another run."""
    chosen = {row.id for row in rows}
    others = [row for row in known if row.id not in chosen and row.status != "gone"]
    if problems := [problem for row in rows for problem in _against(row, others, keep_files)]:
        raise UsageError(problems)


def _against(row: Row, others: Sequence[Row], keep_files: bool) -> Iterator[Problem]:
    if row.goes_on:
        fix = f"tunesmith runs stop {row.id}"
        yield Problem("E-RUN-007", f"the run {row.id} goes on", row.output_dir, row.status, fix)
    if keep_files or row.gone:
        return
    folder = row.folder.resolve()
    more = {"the folder you are in": Path.cwd(), "your home folder": Path.home()}
    more |= {f"the run {other.id}": other.folder.resolve() for other in others}
    for what, inside in more.items():
        if inside.is_relative_to(folder):
            fix = "delete its files by hand; --keep-files forgets the run"
            yield Problem("E-RUN-008", f"the folder of the run {row.id} holds {what}", str(folder), fix=fix)


def remove(row: Row, *, keep_files: bool) -> None:
    """Raises OSError where the folder cannot be deleted; the run is remembered then."""
    if not keep_files and not row.gone:
        shutil.rmtree(row.folder.resolve())
        if row.folder.is_symlink():
            row.folder.unlink()
    registry.forget(row.id)


def bytes_of(folder: Path) -> int:
    """Of all files below it."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())
