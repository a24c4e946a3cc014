"""A checkpoint is committed, not written: a hidden folder is filled, every file is put on the disk, a manifest with
sizes and hashes comes last, and one rename makes it `checkpoint-N`. Readers take only what verifies.

    output_dir/
      .staging/checkpoint-30     in the making, or what a killed run left
      .staging/gone-...          on its way out: a folder is renamed before it is deleted
      checkpoint-20/manifest.json

So no moment at which a process is killed, or the disk is full, leaves half a checkpoint under a name that is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tunesmith._version import __version__
from tunesmith.core.files import fsync, remove_drafts, write_json

__all__ = [
    "FORMAT",
    "MANIFEST",
    "STAGING",
    "Staging",
    "committed",
    "entry_of",
    "files_of",
    "manifest_of",
    "publish",
    "remove",
    "rotate",
    "sealed",
    "set_aside",
    "step_of",
    "sweep",
    "verify",
]

MANIFEST = "manifest.json"
STAGING = ".staging"
FORMAT = 2
"""Of the manifest. A reader refuses a higher one; one of format 1 has no digest of itself."""

_NAME = re.compile(r"checkpoint-(\d+)")
_THREADS = 2  # one hashes while another waits for the disk


def step_of(folder: Path) -> int | None:
    """N of `checkpoint-N`; None for any other name."""
    match = _NAME.fullmatch(folder.name)
    return int(match.group(1)) if match else None


def committed(output_dir: Path) -> list[Path]:
    """The folders `checkpoint-N`, by N: order does not depend on clocks."""
    found = [(step, folder) for folder in output_dir.glob("checkpoint-*") if (step := step_of(folder)) is not None]
    return [folder for _, folder in sorted(found) if folder.is_dir()]


class Staging:
    """A checkpoint in the making. Write files into `folder`; `seal` begins to hash and to sync those that are
    complete, while others are written; `commit` waits for that and gives the folder its name.

    Whoever raises before the commit calls `discard`.
    """

    def __init__(self, output_dir: Path, name: str) -> None:
        self.folder = output_dir / STAGING / name
        self._target = output_dir / name
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="seal")
        self._hashes: dict[str, Future[dict[str, Any]]] = {}
        self._synced: list[Future[None]] = []
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)

    def seal(self, known: Mapping[str, str] | None = None) -> None:
        """Hash and sync, in the background, the files that are there and were not sealed yet. `known`: hashes that
        were found while files were written, by name."""
        known = known or {}
        for file in files_of(self.folder):
            name = file.relative_to(self.folder).as_posix()
            if name not in self._hashes:
                self._synced.append(self._pool.submit(fsync, file))
                self._hashes[name] = self._pool.submit(entry_of, file, known.get(name))

    def commit(self, facts: Mapping[str, Any]) -> Path:
        """The checkpoint under its name, with `facts` in its manifest. One that is there already is replaced."""
        self._seal_all(facts)
        if self._target.exists():
            remove(self._target)
        os.rename(self.folder, self._target)
        fsync(self._target.parent)
        return self._target

    def publish(self) -> list[str]:
        """The files one by one into the folder that was to get the name: each old one stays until the new one takes
        its place. Weights come last, so that what describes them is there before. Returns their names."""
        target = self._target.parent
        self._wait()
        names = sorted(self._hashes, key=lambda name: (name.endswith(".safetensors"), name))
        for folder in {(target / name).parent for name in names}:
            folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            os.replace(self.folder / name, target / name)
        for folder in {(target / name).parent for name in names}:
            fsync(folder)
        shutil.rmtree(self.folder)
        return names

    def discard(self) -> None:
        """Stop, and leave nothing behind; what cannot be removed is swept by the next run."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _seal_all(self, facts: Mapping[str, Any]) -> None:
        files = self._wait()
        write_json(
            self.folder / MANIFEST, sealed({"format": FORMAT, "tunesmith": __version__, **facts, "files": files})
        )
        for folder in sorted((path for path in self.folder.rglob("*") if path.is_dir()), reverse=True):
            fsync(folder)
        fsync(self.folder)

    def _wait(self) -> dict[str, Any]:
        self.seal()
        self._pool.shutdown(wait=True)
        for one in self._synced:
            one.result()
        return {name: self._hashes[name].result() for name in sorted(self._hashes)}


def publish(output_dir: Path, write: Any) -> list[str]:
    """Let `write(folder)` write files, and put each into `output_dir` as a whole. Returns their names."""
    staging = Staging(output_dir, "final")
    try:
        write(staging.folder)
        return staging.publish()
    except BaseException:
        staging.discard()
        raise


def manifest_of(folder: Path) -> dict[str, Any] | None:
    """The manifest of a checkpoint; None where there is none that can be read."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def verify(folder: Path) -> str | None:
    """What is wrong with a committed checkpoint, in words that name the file; None where each file is as it was."""
    manifest = manifest_of(folder)
    if manifest is None:
        return f"{MANIFEST} is missing or not to be read"
    if not isinstance(manifest.get("format"), int) or manifest["format"] > FORMAT:
        return f"it was written by a later version of Tunesmith ({manifest.get('tunesmith', 'unknown')})"
    if manifest["format"] != 1 and manifest != sealed(manifest):
        return f"{MANIFEST} has changed since it was saved"
    files = manifest.get("files")
    if not isinstance(files, dict) or not files or manifest.get("step") != step_of(folder):
        return f"{MANIFEST} is not that of this folder"
    there = {file.relative_to(folder).as_posix(): file for file in files_of(folder)} if folder.is_dir() else {}
    for name, entry in files.items():
        if name not in there:
            return f"{name} is missing"
        if (size := there[name].stat().st_size) != entry.get("size"):
            return f"{name} has {size:,} bytes, not {entry.get('size', 0):,}"
    if extra := sorted(there.keys() - files.keys() - {MANIFEST}):
        return f"{extra[0]} does not belong to it"
    with ThreadPoolExecutor(_THREADS) as pool:
        for name, found in zip(files, pool.map(lambda name: entry_of(there[name]), files), strict=True):
            if found != files[name]:
                return f"{name} has changed since it was saved"
    return None


def remove(folder: Path) -> None:
    """Delete a checkpoint: out of sight first, so that no reader meets a part of it."""
    staging = folder.parent / STAGING
    staging.mkdir(exist_ok=True)
    gone = staging / f"gone-{folder.name}-{uuid.uuid4().hex[:8]}"
    os.rename(folder, gone)
    for changed in (staging, folder.parent):  # or a power cut may leave the old name with a part of the files
        fsync(changed)
    shutil.rmtree(gone, ignore_errors=True)  # what is left is swept by the next run


def rotate(output_dir: Path, limit: int | None, keep: frozenset[Path] = frozenset()) -> list[Path]:
    """Remove the oldest checkpoints beyond `limit`, but never one of `keep` nor the newest. Returns the removed."""
    if limit is None or limit <= 0:
        return []
    found = committed(output_dir)
    kept = {folder.resolve() for folder in (*keep, *found[-1:])}
    removable = [folder for folder in found if folder.resolve() not in kept]
    gone = removable[: max(len(found) - max(limit, len(kept & {one.resolve() for one in found})), 0)]
    for folder in gone:
        remove(folder)
    return gone


def set_aside(output_dir: Path, folders: list[Path]) -> Path | None:
    """Move checkpoints that belong to another course of the run into a folder of their own; None without any."""
    if not folders:
        return None
    number = 1
    while (aside := output_dir / f"earlier-{number}").exists():
        number += 1
    aside.mkdir()
    for folder in folders:
        os.rename(folder, aside / folder.name)
    fsync(output_dir)
    return aside


def sweep(output_dir: Path) -> list[Path]:
    """What a killed run left in `.staging`: a checkpoint that was complete but for its name gets it, all else goes.
    Only whoever holds the lock of the folder may do this. Returns the checkpoints that were rescued."""
    staging = output_dir / STAGING
    rescued = []
    for folder in sorted(staging.iterdir()) if staging.is_dir() else ():
        target = output_dir / folder.name
        if step_of(folder) is not None and not target.exists() and verify(folder) is None:
            os.rename(folder, target)
            rescued.append(target)
        elif folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)
        else:
            folder.unlink(missing_ok=True)
    if staging.is_dir():
        shutil.rmtree(staging, ignore_errors=True)
        fsync(output_dir)
    remove_drafts(output_dir)
    return rescued


def files_of(folder: Path) -> list[Path]:
    """All files below a folder but hidden ones, which systems and people leave anywhere."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )


def entry_of(file: Path, known: str | None = None) -> dict[str, Any]:
    """What a manifest says of a file: `size` in bytes and `sha256` in hex, which may be known. Raises OSError."""
    with file.open("rb") as handle:
        digest = known or hashlib.file_digest(handle, "sha256").hexdigest()
        return {"size": os.fstat(handle.fileno()).st_size, "sha256": digest}


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with the digest of all else in it, however it is laid out."""
    content = {key: value for key, value in manifest.items() if key != "digest"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return {**content, "digest": hashlib.sha256(text.encode()).hexdigest()}
