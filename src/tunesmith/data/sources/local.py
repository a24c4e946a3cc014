"""Local files and folders: which files a path or a pattern stands for, and whether they can be read."""

from __future__ import annotations

import errno
import glob
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tunesmith.core.errors import DataError, MissingInputError, Problem, TunesmithError
from tunesmith.core.suggest import did_you_mean
from tunesmith.data.rows import AGAIN, Row, parse
from tunesmith.data.sources.base import Blob, LocalFile, SourceFile
from tunesmith.data.sources.kinds import SOURCES, kind_of
from tunesmith.data.sources.packed import MAGIC_LENGTH, unpacked

__all__ = ["as_sources", "is_pattern", "list_paths", "local_files", "matches", "read_path"]


def read_path(path: Path) -> Iterator[Row]:
    """All rows of a file, or of the files of a folder in the order of their names, parsed."""
    for file in local_files(path):
        for row in file.rows():
            yield Row(parse(row.values), row.origin)


def local_files(path: Path, file_type: str | None = None) -> list[SourceFile]:
    """The files that a path or a pattern stands for, each looked into: packed ones are what is in them.

    Raises MissingInputError (E-DATA-020) or DataError with the problems of all files.
    """
    blobs: list[Blob] = []
    problems: list[Problem] = []
    for file in list_paths(path):
        try:
            blobs += unpacked(LocalFile(file), _head(file))
        except TunesmithError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    return as_sources(blobs, str(path), file_type)


def as_sources(
    blobs: Sequence[Blob], name: str, file_type: str | None = None, path_of: Callable[[str], str] = str
) -> list[SourceFile]:
    """The blobs of a dataset `name` with their kinds; `file_type` is the kind of all where the user says it, `path_of`
    leaves out of a name what is no part of the file's.

    Raises DataError: E-DATA-006 where a kind is not known, E-DATA-026 where they are of several.
    """
    found = [(blob, file_type or kind_of(path_of(blob.name))) for blob in blobs]
    by_kind: dict[str | None, list[str]] = {}
    for blob, kind in found:
        by_kind.setdefault(kind, []).append(_below(blob.name, name))
    if len(by_kind) > 1:
        rarest = min(by_kind, key=lambda kind: (kind is not None, len(by_kind[kind])))
        told = ", ".join(f"{len(names)} {kind or 'unknown'}" for kind, names in by_kind.items())
        what = f"the files of a dataset must be of one type: {told}"
        fix = "move these elsewhere, or name the files that are meant"
        raise DataError(Problem("E-DATA-026", what, where=name, got=", ".join(by_kind[rarest][:8]), fix=fix))
    if None in by_kind:
        first = found[0][0].name
        ending = Path(first).suffix or Path(first).name
        endings = ", ".join(f".{one}" for one in SOURCES)
        fix = f"name it by what it holds ({endings}), or say it with file_type"
        raise DataError(Problem("E-DATA-006", f'unknown file type "{ending}"', where=first, fix=fix))
    return [SourceFile(blob, kind) for blob, kind in found if kind is not None]


def _below(name: str, whole: str) -> str:
    return name.removeprefix(whole).lstrip("/!\\") or name


def is_pattern(name: str) -> bool:
    return glob.has_magic(name)


def matches(pattern: str | Path) -> list[Path]:
    """The files, not folders, that a pattern stands for, by name; `**` goes into folders of folders."""
    return sorted(file for file in map(Path, glob.iglob(str(pattern), recursive=True)) if not file.is_dir())


def list_paths(path: Path) -> list[Path]:
    """The files that a path stands for: itself, what lies directly in the folder, or what matches the pattern; sorted
    and without hidden ones.

    Raises MissingInputError (E-DATA-020), DataError where a folder is empty or a link points to nothing.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if not file.name.startswith(".") and not file.is_dir())
        if not files:
            fix = "name the folder with the files"
            raise DataError(Problem("E-DATA-002", "the folder holds no files", str(path), fix=fix))
        return files
    if path.exists():
        return [path]
    if path.is_symlink():
        what = "the link points to nothing"
        raise DataError(Problem("E-DATA-025", what, str(path), fix=f"its goal: {path.readlink()}"))
    if is_pattern(str(path)) and (files := matches(path)):
        return files
    raise MissingInputError(_missing(path))


def _missing(path: Path) -> Problem:
    if is_pattern(str(path)):
        return Problem("E-DATA-020", "no file matches the pattern", where=str(path), fix="try it with ls")
    folder = path.parent
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    hint = did_you_mean(path.name, names)
    fix = hint or ("the folder does not exist either" if not folder.is_dir() else None)
    return Problem("E-DATA-020", "no such file or folder", where=str(path), fix=fix)


def _head(file: Path) -> bytes:
    """The first bytes. Raises before a reader can block on a pipe."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            fix = "write the rows to a file first"
            raise DataError(Problem("E-DATA-025", "not a regular file", str(file), fix=fix))
        with file.open("rb") as handle:
            head = handle.read(MAGIC_LENGTH)
    except OSError as error:
        what = f"cannot be read: {errno.errorcode.get(error.errno or 0, 'unknown error')}"
        remedy = f"chmod +r {file}" if isinstance(error, PermissionError) else None
        raise DataError(Problem("E-DATA-025", what, str(file), got=error.strerror, fix=remedy)) from error
    if not head:
        raise DataError(Problem("E-DATA-001", "the file is empty", str(file), fix=AGAIN))
    return head
