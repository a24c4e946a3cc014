"""The list of all runs. Files are the truth; a SQLite index beside them keeps what was read, by the times of the files.

The index can be deleted at any time. One that is damaged, or of another version, is made anew; where it can be neither
read nor written, the files are read instead, which only takes longer.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunesmith.core import env
from tunesmith.core.files import read_json
from tunesmith.runs import registry
from tunesmith.runs.manifest import RUN_FILE
from tunesmith.runs.row import Row, row_of
from tunesmith.train.callbacks.names import LOG_NAME

__all__ = ["index_file", "rows"]

_VERSION = 1  # of the table and of what is in a row
_WAIT_MS = 5000
_TABLE = "CREATE TABLE IF NOT EXISTS runs (id TEXT PRIMARY KEY, stamp TEXT NOT NULL, row TEXT NOT NULL)"

_DAMAGED = (sqlite3.DatabaseError, ValueError, TypeError, LookupError)
_NO_INDEX = (*_DAMAGED, OSError)  # the files are read instead

Stamp = str
"""Times and sizes of the files that a row was made from."""


def index_file() -> Path:
    return env.home_dir() / "runs.sqlite"


def rows() -> list[Row]:
    """Every run that is remembered, the last begun first."""
    known = dict(registry.known())
    found: dict[str, Row] = {}
    changed: dict[str, tuple[Stamp, Row]] = {}
    kept = _kept() if known else {}
    for run_id, file in known.items():
        before = kept.get(run_id)
        place = _place(file)
        stamp = _stamp(file, place)
        if before is not None and before[0] == stamp and not before[1].goes_on:  # whether it lives, no file says
            found[run_id] = before[1]
        elif (row := row_of(run_id, place)) is not None:
            found[run_id] = row
            changed[run_id] = (stamp, row)
        else:
            last = before[1] if before is not None else Row(run_id, str(place))
            found[run_id] = replace(last, output_dir=str(place), gone=True)
    _keep(changed, gone=kept.keys() - known.keys())
    return sorted(found.values(), key=lambda row: (row.created, row.id), reverse=True)


def _place(file: Path) -> Path:
    entry = read_json(file)
    return Path(str(entry["output_dir"])) if isinstance(entry, dict) and "output_dir" in entry else Path("/nowhere")


def _stamp(file: Path, place: Path) -> Stamp:
    parts: list[Any] = [str(place)]
    for one in (file, place / RUN_FILE, place / LOG_NAME):
        with suppress(OSError):
            status = one.stat()
            parts.append([one.name, status.st_mtime_ns, status.st_size, status.st_ino])
    return json.dumps(parts)


def _kept() -> dict[str, tuple[Stamp, Row]]:
    with suppress(*_NO_INDEX), _opened() as database:
        return {run_id: (stamp, _row(text)) for run_id, stamp, text in database.execute("SELECT * FROM runs")}
    return {}


def _row(text: str) -> Row:
    values = json.loads(text)
    return Row(**{**values, "tags": tuple(values["tags"])})


def _keep(changed: dict[str, tuple[Stamp, Row]], gone: set[str]) -> None:
    if not changed and not gone:
        return
    with suppress(*_NO_INDEX), _opened() as database, database:
        database.executemany(
            "INSERT OR REPLACE INTO runs VALUES (?, ?, ?)",
            [(run_id, stamp, json.dumps(row.to_dict())) for run_id, (stamp, row) in changed.items()],
        )
        database.executemany("DELETE FROM runs WHERE id = ?", [(run_id,) for run_id in gone])


@contextmanager
def _opened() -> Iterator[sqlite3.Connection]:
    """The index, made where it is missing or of another version; one that is damaged is removed."""
    env.home_dir().mkdir(parents=True, exist_ok=True)
    try:
        with closing(_connected()) as database:
            yield database
    except _DAMAGED as error:
        if not isinstance(error, sqlite3.OperationalError):  # that is: locked, or cannot be opened
            _remove()
        raise


def _connected() -> sqlite3.Connection:
    database = sqlite3.connect(index_file(), timeout=_WAIT_MS / 1000)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version != _VERSION:
            with database:
                database.execute("BEGIN IMMEDIATE")
                database.execute("DROP TABLE IF EXISTS runs")
                database.execute(_TABLE)
                database.execute(f"PRAGMA user_version={_VERSION}")
    except BaseException:
        database.close()
        raise
    return database


def _remove() -> None:
    from filelock import FileLock

    with FileLock(env.home_dir() / ".runs.sqlite.lock"):
        for suffix in ("", "-wal", "-shm"):
            index_file().with_name(index_file().name + suffix).unlink(missing_ok=True)
