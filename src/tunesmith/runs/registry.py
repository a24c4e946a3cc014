"""Where the folders of runs are: one small file for each, named after the run's id, in the user's data folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tunesmith.core import env
from tunesmith.core.files import read_json, write_json

__all__ = ["forget", "known", "place_file", "places", "register"]


def places() -> Path:
    """The folder of those files; not created here."""
    return env.home_dir() / "runs"


def place_file(run_id: str) -> Path:
    return places() / f"{run_id}.json"


def register(run_id: str, output_dir: Path) -> None:
    """Remember where a run's folder is. Raises OSError where that cannot be written."""
    file, entry = place_file(run_id), {"output_dir": str(output_dir.absolute())}
    if read_json(file) != entry:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, entry)


def forget(run_id: str) -> None:
    """The folder itself stays."""
    place_file(run_id).unlink(missing_ok=True)


def known() -> Iterator[tuple[str, Path]]:
    """(id, file) of every run that is remembered."""
    folder = places()
    for file in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        if not file.name.startswith("."):
            yield file.stem, file
