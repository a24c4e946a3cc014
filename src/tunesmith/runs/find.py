"""Which run is meant: its folder, its id or the beginning of it, or its name."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tunesmith.core.errors import MissingInputError, Problem, UsageError
from tunesmith.core.suggest import did_you_mean
from tunesmith.runs import manifest, registry
from tunesmith.runs.index import rows
from tunesmith.runs.row import Row, row_of

__all__ = ["find"]

_SHOWN = 4


def find(words: Sequence[str]) -> list[Row]:
    """The run that each word means. A folder that holds a run is remembered from then on.

    Raises UsageError where a word means several, MissingInputError where it means none.
    """
    known = rows()
    return [_find(word, known) for word in words]


def _find(word: str, known: Sequence[Row]) -> Row:
    folder = Path(word).expanduser()
    looks_like_a_path = "/" in word or "\\" in word or word in (".", "..")
    if looks_like_a_path or (folder / manifest.RUN_FILE).is_file():
        return _in_folder(word, folder)
    matching = [row for row in known if row.id == word]
    matching = matching or [row for row in known if row.name == word]
    matching = matching or [row for row in known if word and row.id.startswith(word)]
    if len(matching) == 1:
        return matching[0]
    if not matching:
        names = [name for row in known for name in (row.name, row.id)]
        fix = did_you_mean(word, names) or "tunesmith runs ls shows all; the folder of a run means it too"
        raise MissingInputError(Problem("E-RUN-001", f'no run is called "{word}"', fix=fix))
    shown = ", ".join(f"{row.id} ({row.status})" for row in matching[:_SHOWN])
    what = f'"{word}" means {len(matching)} runs'
    raise UsageError(Problem("E-RUN-002", what, got=shown, fix="write more of the id, or the folder"))


def _in_folder(word: str, folder: Path) -> Row:
    found = manifest.read(folder)
    row = None if found is None else row_of(found["id"], folder.absolute())
    if row is None:
        there = folder.is_dir()
        what = "the folder holds no record of a run" if there else "there is no such folder"
        fix = f"the output_dir of a run, which holds {manifest.RUN_FILE}; or a name of tunesmith runs ls"
        raise MissingInputError(Problem("E-RUN-001", what, where=word, fix=fix))
    with suppress(OSError):  # the list is a convenience
        registry.register(row.id, folder)
    return row
