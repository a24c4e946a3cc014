"""The queue on a screen and for scripts, and what its jobs print."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunesmith.cli.output import is_terminal
from tunesmith.core.errors import UsageError
from tunesmith.runs.queue.job import Attempt, Job
from tunesmith.runs.queue.rules import something_to_do
from tunesmith.runs.queue.store import Queue
from tunesmith.runs.queue.view import logs, note, progress, records

__all__ = ["as_document", "follow_logs", "lines", "print_logs"]

_DONE_SHOWN = 3
_POLL = 0.3  # seconds between two looks at a log that is followed
_CHUNK = 1 << 16
_ENDED = ("done", "failed", "stopped", "paused")


def as_document(queue: Queue) -> dict[str, Any]:
    """The whole queue: whether it is paused, the runner, and the jobs in their order."""
    jobs, now, runner = queue.jobs(), datetime.now(UTC), queue.runner()
    return {
        "paused": queue.paused,
        "runner": runner.to_dict() if runner else None,
        "folder": str(queue.folder),
        "jobs": records(queue, jobs, now),
        "unreadable": [str(path) for path in queue.unreadable()],
    }


def lines(queue: Queue, everything: bool) -> Iterator[str]:
    """A table of the jobs, ended ones first, and a line that says whether anything starts them."""
    jobs, now = queue.jobs(), datetime.now(UTC)
    done = [job for job in jobs if job.state == "done"]
    left_out = set() if everything else {job.number for job in done[:-_DONE_SHOWN]}
    rank = {"done": 0, "failed": 0, "stopped": 0, "running": 1}
    shown = sorted((job for job in jobs if job.number not in left_out), key=lambda job: rank.get(job.state, 2))
    if not jobs:
        yield "the queue is empty"
    else:
        rows = [("job", "state", "steps", "left", "name", ""), *(_row(queue, job, jobs, now) for job in shown)]
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        most = shutil.get_terminal_size().columns if is_terminal(sys.stdout) else None
        for row in rows:
            cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)]
            yield _cut("  ".join([*cells, row[5]]).rstrip(), most)
    if left_out:
        yield f"and {len(left_out)} more that are done: --all"
    if queue.paused:
        yield "the queue is paused: tunesmith queue resume"
    if queue.has_runner():
        yield f"a runner is at work: {queue.runner() or 'it has just begun'}"
    elif something_to_do(jobs, queue.paused):
        yield "no runner is at work: tunesmith queue run"


def _row(queue: Queue, job: Job, jobs: list[Job], now: datetime) -> tuple[str, ...]:
    where = progress(job)
    left = where.left if where and job.state == "running" else None
    steps = str(where) if where else "-"
    return str(job.number), job.state, steps, left or "-", job.name, note(queue, job, jobs, now)


def _cut(line: str, most: int | None) -> str:
    line = "".join(char if char.isprintable() else "\ufffd" for char in line)  # a log may hold what a terminal obeys
    return line if most is None or len(line) <= most else line[: most - 3] + "..."


def print_logs(queue: Queue, number: int) -> None:
    """What the attempts of a job have printed so far. Raises UsageError if there is no such job."""
    found = list(logs(queue, number))
    if not found:
        print(f"job {number} has not run yet", file=sys.stderr)
    for attempt, path in found:
        _announce(attempt)
        _copy(path, 0)


def follow_logs(queue: Queue, number: int) -> None:
    """The same, and what comes, until the job is over or waits for the user."""
    if not list(logs(queue, number)):
        print(f"job {number} has not run yet; waiting", file=sys.stderr)
    place: dict[Path, int] = {}
    while True:
        try:
            state = queue.get(number).state  # first: what was printed before it ended is read after
            found = list(logs(queue, number))
        except UsageError:
            if place:  # removed while it was followed
                return
            raise
        for attempt, path in found:
            if path not in place:
                _announce(attempt)
            place[path] = _copy(path, place.get(path, 0))
        if state in _ENDED:
            return
        time.sleep(_POLL)


def _announce(attempt: Attempt) -> None:
    print(f"== attempt {attempt.number}, {attempt.started}", file=sys.stderr, flush=True)


def _copy(path: Path, place: int) -> int:
    """Print a file from a place on; returns the place behind what was printed."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return place
    with file:
        file.seek(place)
        while chunk := file.read(_CHUNK):
            _write(chunk)
        return file.tell()


def _write(chunk: bytes) -> None:
    sys.stdout.flush()
    try:
        file = sys.stdout.fileno()
    except (OSError, ValueError):  # replaced by a test or a notebook
        sys.stdout.write(chunk.decode("utf-8", errors="replace"))
        return
    while chunk:
        chunk = chunk[os.write(file, chunk) :]
