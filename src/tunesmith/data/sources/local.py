"""Local files and folders: which files a path stands for, of which kind they are, and their rows."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator
from pathlib import Path

from tunesmith.core.errors import DataError, MissingInputError, Problem
from tunesmith.core.suggest import did_you_mean
from tunesmith.data.rows import AGAIN, Row, parse
from tunesmith.data.sources.base import LocalFile, SourceFile
from tunesmith.data.sources.kinds import SOURCES, kind_of

__all__ = ["list_files", "local_files", "read_path"]

# A file that starts with these bytes is packed, whatever its name says.
PACKED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"PK\x03\x04": ("zip", "unzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ": ("xz", "unxz"),
}


def read_path(path: Path) -> Iterator[Row]:
    """All rows of a file, or of the files of a folder in the order of their names, parsed."""
    for file in local_files(path):
        for row in file.rows():
            yield Row(parse(row.values), row.origin)


def local_files(path: Path) -> list[SourceFile]:
    """The files that `path` stands for, each looked into: packed files and what is no file are refused.

    Raises MissingInputError (E-DATA-020) or DataError with the problems of all files.
    """
    found: list[SourceFile] = []
    problems: list[Problem] = []
    for file in list_files(path):
        try:
            _check_readable(file)
            found.append(SourceFile(LocalFile(file), kind_of(file.name) or ""))
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    return found


def list_files(path: Path) -> list[Path]:
    """The files that `path` stands for: itself, or what lies directly in the folder, without hidden files, sorted.

    Raises MissingInputError (E-DATA-020), DataError where the folder is empty or mixes kinds, or the kind is unknown.
    """
    if not path.is_dir():
        if not path.exists():
            if path.is_symlink():
                raise DataError(
                    Problem("E-DATA-025", "the link points to nothing", str(path), fix=f"its goal: {path.readlink()}")
                )
            raise MissingInputError(_missing(path))
        if kind_of(path.name) is None:
            raise DataError(
                Problem(
                    "E-DATA-006",
                    f'unknown file type "{path.suffix or path.name}"',
                    where=str(path),
                    fix="name it by what it holds: " + ", ".join(f".{name}" for name in SOURCES),
                )
            )
        return [path]
    files = sorted(file for file in path.iterdir() if not file.name.startswith(".") and not file.is_dir())
    if not files:
        raise DataError(
            Problem("E-DATA-002", "the folder holds no files", str(path), fix="name the folder with the files")
        )
    by_kind: dict[str | None, list[str]] = {}
    for file in files:
        by_kind.setdefault(kind_of(file.name), []).append(file.name)
    if len(by_kind) > 1 or None in by_kind:
        rarest = min(by_kind, key=lambda kind: (kind is not None, len(by_kind[kind])))
        raise DataError(
            Problem(
                "E-DATA-026",
                "the files of a dataset folder must be of one type: "
                + ", ".join(f"{len(names)} {kind or 'unknown'}" for kind, names in by_kind.items()),
                where=str(path),
                got=", ".join(by_kind[rarest]),
                fix="move these elsewhere, or name one file instead of the folder",
            )
        )
    return files


def _missing(path: Path) -> Problem:
    folder = path.parent
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    hint = did_you_mean(path.name, names)
    fix = hint or ("the folder does not exist either" if not folder.is_dir() else None)
    return Problem("E-DATA-020", "no such file or folder", where=str(path), fix=fix)


def _check_readable(file: Path) -> None:
    """Raises before the format's reader can block on a pipe or misread a packed file."""
    if not stat.S_ISREG(file.stat().st_mode):
        raise DataError(Problem("E-DATA-025", "not a regular file", str(file), fix="write the rows to a file first"))
    try:
        with file.open("rb") as handle:
            head = handle.read(8)
    except PermissionError as error:
        raise DataError(
            Problem(
                "E-DATA-025", f"cannot be read: {errno.errorcode[error.errno or 0]}", str(file), fix=f"chmod +r {file}"
            )
        ) from error
    if not head:
        raise DataError(Problem("E-DATA-001", "the file is empty", str(file), fix=AGAIN))
    for magic, (name, command) in PACKED.items():
        if head.startswith(magic):
            raise DataError(
                Problem("E-DATA-005", f"the file is packed with {name}", str(file), fix=f"run {command} first")
            )
