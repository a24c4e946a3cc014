"""`run.json`: what a run was asked to do, what it ran on, what happened. Each write leaves a whole file.

{"format": 1, "id": "3f2a91c4", "name": "first", "tags": [], "kind": "train", "status": "running", "exit_code": null,
 "created": "2026-11-27T16:03:12Z", "updated": ..., "process": {"pid", "started", "host"}, "command": [...], "cwd": ...,
 "config": {...}, "config_digest": ..., "plan": {...}, "data": [{"dataset", "use", "name", "digest", "whole"}],
 "rows": {"rows", "kept", "dropped", "samples", "tokens", "trained"},
 "template_digest": ..., "model": {"name", "revision"},
 "versions": {...}, "hardware": {...}, "seeds": {...}, "events": [{"time", "kind", ...}], "warnings": [...],
 "checks": {...}, "steps": {"done", "total"}, "metrics": {...},
 "saved": {"model.safetensors": {"size", "sha256"}, ...}, "error": null}
"""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunesmith.core.files import read_json, write_json

__all__ = [
    "ENDED",
    "FORMAT",
    "MOST_EVENTS",
    "RUN_FILE",
    "add_event",
    "changing",
    "event",
    "now",
    "read",
    "remove",
    "write",
]

RUN_FILE = "run.json"
_LOCK = ".run.json.lock"
FORMAT = 1
"""A reader takes what is not newer."""

MOST_EVENTS = 500
"""Older ones make room; `events_left_out` counts them."""

ENDED = ("finished", "stopped", "failed")

_REQUIRED = {
    *("format", "id", "name", "tags", "kind", "status", "exit_code", "created", "updated"),
    *("process", "config", "steps", "metrics", "events"),
}  # without them it is the file of something else

Manifest = dict[str, Any]


def now() -> str:
    """The time in UTC, as ISO 8601 to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read(output_dir: Path) -> Manifest | None:
    """The manifest of a folder; None where there is none that can be read, or one of a newer format."""
    found = read_json(output_dir / RUN_FILE)
    ours = isinstance(found, dict) and found.keys() >= _REQUIRED and isinstance(found["format"], int)
    return found if ours and found["format"] <= FORMAT else None


def write(output_dir: Path, manifest: Manifest) -> None:
    """Put it in the place of what was there. Raises OSError."""
    manifest["updated"] = now()
    write_json(output_dir / RUN_FILE, json.loads(json.dumps(manifest, default=str)))


@contextmanager
def changing(output_dir: Path) -> Generator[Manifest]:
    """The manifest, to be changed; written at the end. Others who change it wait: the run itself, and `runs tag`.

    Raises FileNotFoundError where there is none, OSError where it cannot be written.
    """
    with locked(output_dir):
        manifest = read(output_dir)
        if manifest is None:
            raise FileNotFoundError(f"no {RUN_FILE} in {output_dir}")
        yield manifest
        write(output_dir, manifest)


def locked(output_dir: Path) -> Any:
    """A lock on the manifest of a folder, as a context manager."""
    from filelock import FileLock

    return FileLock(output_dir / _LOCK)


def remove(output_dir: Path) -> None:
    """Take the manifest away, with its lock, which the caller holds."""
    for name in (RUN_FILE, _LOCK):
        (output_dir / name).unlink(missing_ok=True)


def event(output_dir: Path, kind: str, **facts: Any) -> None:
    """Add what happened to the record of the folder. Raises what `changing` raises."""
    with changing(output_dir) as manifest:
        add_event(manifest, kind, **facts)


def add_event(manifest: Manifest, kind: str, **facts: Any) -> None:
    events = manifest.setdefault("events", [])
    events.append({"time": now(), "kind": kind, **facts})
    if (more := len(events) - MOST_EVENTS) > 0:
        del events[:more]
        manifest["events_left_out"] = manifest.get("events_left_out", 0) + more
