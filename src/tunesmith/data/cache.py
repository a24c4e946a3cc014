"""Prepared data on disk, found again by what it was made from.

The name of an entry is a digest of everything that its samples depend on: the bytes of the files, the format, the
template, the tokenizer, and the code that does the work. A changed byte is another entry; nothing is ever stale.

An entry is made in a draft beside it and renamed. A draft that was interrupted stays, and who needs the entry next goes
on with it; hidden files in it are for that only. Drafts that nobody came back for are removed after a week.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import time
from typing import Any

from tunesmith._version import __version__
from tunesmith.core import env
from tunesmith.core.errors import DataError, Problem, StorageError
from tunesmith.core.files import fsync, locked, read_json, write_json

__all__ = ["Entry", "age", "cached", "code_digest", "entries", "kept_in", "remove"]

_MANIFEST = "manifest.json"
_DRAFT = ".draft.json"  # in a draft: what it is made from
_FORGOTTEN = 7.0  # days after which an interrupted draft is removed
_NAME_OF_DRAFT = re.compile(r"\.([0-9a-f]{32})\.(draft|\d+)")
_CODE = ("core/types.py", "render", "data")
"""What decides about samples; the rest of the package does not."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the cache, or the draft of one that was interrupted. `used`: seconds since the epoch."""

    key: str
    name: str
    folder: Path
    bytes: int
    used: float
    finished: bool = True


def cached(parts: Mapping[str, Any], name: str, make: Callable[[Path], None], *, rebuild: bool = False) -> Path:
    """The folder that `make` filled for these `parts` (plain values), now or before. Two runs that need it at once
    wait for each other. `make` may find in its folder what it left there when it was interrupted.

    Raises StorageError where the disk does not take it."""
    folder = _ensure(_root() / _digest(parts), parts, name, make, rebuild)
    for draft in _drafts():
        if draft.used < time() - _FORGOTTEN * 86400:
            remove(draft)
    return folder


def kept_in(
    folder: Path, parts: Mapping[str, Any], name: str, make: Callable[[Path], None], *, rebuild: bool = False
) -> Path:
    """The same in a folder of the user's choice, which is made if it is not there.

    Raises DataError where it holds what was made from other parts.
    """
    manifest = _manifest(folder)
    if manifest is not None and not rebuild and manifest["parts"] != json.loads(_as_text(parts)):
        differing = [part for part in parts if manifest["parts"].get(part) != json.loads(_as_text(parts))[part]]
        raise DataError(
            Problem(
                "E-DATA-112",
                f"tokenized_path holds data that was made otherwise: {', '.join(differing)} changed since",
                where=str(folder),
                got="; ".join(f"{part}: {_shortly(manifest['parts'].get(part))}" for part in differing[:3]),
                fix="overwrite_cache: true to make it anew, or another tokenized_path",
            )
        )
    if manifest is None and folder.exists() and any(folder.iterdir()):
        what = "tokenized_path is a folder with something else in it"
        raise DataError(Problem("E-DATA-112", what, str(folder), fix="name a new folder, or an empty one"))
    return _ensure(folder, parts, name, make, rebuild)


def _ensure(folder: Path, parts: Mapping[str, Any], name: str, make: Callable[[Path], None], rebuild: bool) -> Path:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent / f".{folder.name}.lock", "preparing the same data"):
            if not rebuild and _is_whole(folder):
                os.utime(folder / _MANIFEST)
                return folder
            draft = _draft(folder, parts, name, rebuild)
            try:
                make(draft)
            except DataError:  # the files have to be changed, and are then another entry
                shutil.rmtree(draft)
                raise
            _commit(draft, folder, parts, name)
            return folder
    except OSError as error:
        what = f"prepared data cannot be written: {error.strerror or error}"
        fix = "free some space, or set TUNESMITH_DATA_CACHE to a folder on another disk"
        raise StorageError(Problem("E-DATA-111", what, str(folder), fix=fix)) from error


def _draft(folder: Path, parts: Mapping[str, Any], name: str, rebuild: bool) -> Path:
    """The folder to make `folder` in: one that was interrupted for the same parts, or an empty one. With `rebuild`,
    what an ordinary call has begun does not count."""
    draft = folder.parent / f".{folder.name}.draft"
    mark = {"key": _digest(parts), "name": name, "rebuild": rebuild}
    begun = read_json(draft / _DRAFT)
    if not isinstance(begun, dict) or begun.get("key") != mark["key"] or (rebuild and not begun.get("rebuild")):
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        write_json(draft / _DRAFT, mark)
    return draft


def _commit(draft: Path, folder: Path, parts: Mapping[str, Any], name: str) -> None:
    files = [file for file in sorted(draft.iterdir()) if not file.name.startswith(".") and file.name != _MANIFEST]
    manifest = {
        "name": name,
        "version": __version__,
        "parts": parts,
        "files": {f.name: f.stat().st_size for f in files},
    }
    (draft / _MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False, indent=1), encoding="utf-8")
    for path in (*files, draft / _MANIFEST, draft):
        fsync(path)
    shutil.rmtree(folder, ignore_errors=True)  # what was broken, or is made anew
    draft.rename(folder)
    fsync(folder.parent)
    for file in folder.glob(".*"):
        file.unlink()


def _manifest(folder: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((folder / _MANIFEST).read_text("utf-8"))
        if isinstance(found, dict) and {"name", "parts", "files"} <= found.keys():
            return found
    return None


def _is_whole(folder: Path) -> bool:
    manifest = _manifest(folder)
    if manifest is None:
        return False
    with contextlib.suppress(OSError):
        return all((folder / file).stat().st_size == size for file, size in manifest["files"].items())
    return False


def entries() -> Iterator[Entry]:
    """What is in the cache, the last used first, interrupted drafts included."""
    found = list(_drafts())
    for folder in _root().iterdir() if _root().is_dir() else ():
        manifest = None if folder.name.startswith(".") else _manifest(folder)
        if manifest is not None:
            used = (folder / _MANIFEST).stat().st_mtime
            found.append(Entry(folder.name, manifest["name"], folder, sum(manifest["files"].values()), used))
    yield from sorted(found, key=lambda entry: -entry.used)


def _drafts() -> Iterator[Entry]:
    """Drafts that no process is at work on."""
    from filelock import FileLock, Timeout

    for folder in sorted(_root().iterdir()) if _root().is_dir() else ():
        if not (match := _NAME_OF_DRAFT.fullmatch(folder.name)):
            continue
        with contextlib.suppress(Timeout, OSError):
            with FileLock(_lock(match[1]), timeout=0):
                states = [file.stat() for file in folder.iterdir()] or [folder.stat()]
                name = (read_json(folder / _DRAFT) or {}).get("name", "unknown")
            used = max(state.st_mtime for state in states)
            yield Entry(match[1], name, folder, sum(state.st_size for state in states), used, finished=False)


def remove(entry: Entry) -> None:
    """Waits for a run that is making or opening it; one that reads it goes on with what it has mapped."""
    from filelock import FileLock

    with FileLock(_lock(entry.key)):
        shutil.rmtree(entry.folder, ignore_errors=True)
    _lock(entry.key).unlink(missing_ok=True)


def _lock(key: str) -> Path:
    return _root() / f".{key}.lock"


def age(entry: Entry) -> float:
    """Days since it was used."""
    return (time() - entry.used) / 86400


@cache
def code_digest(names: tuple[str, ...] = _CODE) -> str:
    """A digest of code, files and folders of this package: of that which samples depend on, or of another part."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.blake2b(digest_size=16)
    for name in names:
        place = package / name
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(f"{file.relative_to(package)}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _root() -> Path:
    return env.data_cache_dir() / "prepared"


def _digest(parts: Mapping[str, Any]) -> str:
    return hashlib.blake2b(_as_text(parts).encode(), digest_size=16).hexdigest()


def _as_text(parts: Mapping[str, Any]) -> str:
    return json.dumps(parts, sort_keys=True, ensure_ascii=False)


def _shortly(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
