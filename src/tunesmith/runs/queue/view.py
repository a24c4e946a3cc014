"""What people and scripts are told of a job: how far its run is, why it waits, what went wrong."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunesmith.core.files import read_json
from tunesmith.runs.queue.job import Attempt, Job
from tunesmith.runs.queue.rules import in_vain, is_due
from tunesmith.runs.queue.store import Queue

__all__ = ["Progress", "asked_by_user", "how_it_ended", "logs", "note", "progress", "records"]

_TAIL = 64 * 1024  # bytes of a file's end that are looked at
_ERROR = re.compile(r"^error\[E-[A-Z]+-\d{3}\]: .*", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Progress:
    """Optimizer steps done and of the whole run; the rest of the time as h:mm:ss."""

    step: int
    total: int
    left: str | None

    def __str__(self) -> str:
        return f"{self.step}/{self.total}"


def progress(job: Job) -> Progress | None:
    """How far the last attempt is, from the run's log, or was when it ended; None where it has not written yet."""
    if job.last is None or job.output_dir is None:
        return None
    if job.last.ended is not None:  # by now the log may be that of another run
        return Progress(job.last.step, job.last.steps or 0, None) if job.last.step is not None else None
    path = Path(job.output_dir) / "trainer_log.jsonl"
    began = datetime.fromisoformat(job.last.started).timestamp()
    with suppress(OSError):
        if path.stat().st_mtime < began:  # the log of an earlier attempt, or of another run
            return None
    for line in reversed(_end_of(path).splitlines()):
        with suppress(ValueError, KeyError, TypeError):
            values = json.loads(line)
            return Progress(int(values["current_steps"]), int(values["total_steps"]), values.get("remaining_time"))
    return None


def asked_by_user(job: Job) -> bool:
    """Whether the run's record says that somebody asked it to stop, with an event of the kind `stop_asked`.

    A signal of the system leaves none. `run.json` may be missing: then nobody did.
    """
    found = read_json(Path(job.output_dir) / "run.json") if job.output_dir else None
    events = found.get("events") if isinstance(found, dict) else None
    if job.last is None or not isinstance(events, list):
        return False
    began = datetime.fromisoformat(job.last.started)
    asked = (event for event in events if isinstance(event, dict) and event.get("kind") == "stop_asked")
    return any(_time(event) >= began for event in asked)


def _time(event: dict[str, Any]) -> datetime:
    try:
        found = datetime.fromisoformat(str(event["time"]))
    except (KeyError, ValueError):
        return datetime.min.replace(tzinfo=UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def how_it_ended(queue: Queue, job: Job) -> str | None:
    """The last attempt's exit code in words, with the first line of the error it printed."""
    attempt = job.last
    if attempt is None or attempt.ended is None or attempt.exit_code == 0:
        return None
    code = attempt.exit_code
    if code is None:
        return "ended without an exit code"
    words = f"ended by {_signal_name(-code)}" if code < 0 else f"exit {code}"
    errors = _ERROR.findall(_end_of(log_of(queue, job, attempt)))
    return f"{words}, {errors[-1]}" if errors and code > 0 else words


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def note(queue: Queue, job: Job, jobs: Sequence[Job], now: datetime) -> str:
    """Why a job waits or has ended, its devices, and what is wanted of it, in a few words."""
    states = {one.number: one.state for one in jobs}
    parts = []
    if job.devices:
        parts.append(f"device {','.join(job.devices)}")
    if job.state == "running" and job.wish is not None:
        parts.append("saves, then is removed" if job.wish == "remove" else "saves and leaves")
    if job.state == "queued":
        if waiting := [number for number in job.after if states.get(number) != "done"]:
            parts.append("waits for " + ", ".join(f"{number} ({states.get(number, 'gone')})" for number in waiting))
        if job.not_before is not None and not is_due(job, now):
            seconds = (datetime.fromisoformat(job.not_before) - now).total_seconds()
            parts.append(f"tried again in {seconds:.0f} s")
    if job.state != "running" and (ended := how_it_ended(queue, job)):
        parts.append(ended)
    return "; ".join(parts)


def records(queue: Queue, jobs: Sequence[Job], now: datetime) -> list[dict[str, Any]]:
    """Jobs for scripts: what their files hold but for the command line, and what follows from it."""
    waiting = [job.number for job in jobs if job.state == "queued"]
    positions, vain = {number: place for place, number in enumerate(waiting, 1)}, in_vain(jobs)
    return [
        {**_record(queue, job, jobs, now), "position": positions.get(job.number), "waits_in_vain": job.number in vain}
        for job in jobs
    ]


def _record(queue: Queue, job: Job, jobs: Sequence[Job], now: datetime) -> dict[str, Any]:
    where = progress(job)
    attempt = job.last
    return {
        "job": job.number,
        "state": job.state,
        "name": job.name,
        "steps": {"done": where.step, "total": where.total} if where else None,
        "remaining_time": where.left if where and job.state == "running" else None,
        "exit_code": attempt.exit_code if attempt else None,
        "note": note(queue, job, jobs, now),
        "wish": job.wish,
        "devices": job.devices,
        "after": job.after,
        "retries_left": job.retries_left,
        "not_before": job.not_before,
        "created": job.created,
        "source": job.source,
        "overrides": job.overrides,
        "directory": job.directory,
        "output_dir": job.output_dir,
        "attempts": [
            {
                "number": one.number,
                "started": one.started,
                "ended": one.ended,
                "exit_code": one.exit_code,
                "step": one.step,
                "process": one.process,
                "log": str(log_of(queue, job, one)),
            }
            for one in job.attempts
        ],
    }


def log_of(queue: Queue, job: Job, attempt: Attempt) -> Path:
    return queue.folder_of(job.number) / f"{attempt.number}.log"


def logs(queue: Queue, number: int) -> Iterator[tuple[Attempt, Path]]:
    """The attempts of a job with what each has printed."""
    job = queue.get(number)
    for attempt in job.attempts:
        yield attempt, log_of(queue, job, attempt)


def _end_of(path: Path) -> str:
    """The last lines of a file; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
