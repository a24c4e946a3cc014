"""A job and its attempts, as `job.json` holds them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tunesmith.core.files import read_json, write_json

__all__ = ["FORMAT", "Attempt", "Job", "State", "Wish", "moment", "read_job", "write_job"]

FORMAT = 1

State: TypeAlias = Literal["queued", "running", "done", "failed", "stopped", "paused"]
Wish: TypeAlias = Literal["pause", "requeue", "remove"]
"""What the user wants of a running job, once it has saved and left: wait until it is resumed, stay in its place in the
queue, or go."""


def moment(time: datetime | None = None) -> str:
    """A time (now if none is given) as text that sorts and that people read: UTC, to the second."""
    return (time or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")


@dataclass(slots=True)
class Attempt:
    """One start of a job."""

    number: int
    started: str
    ended: str | None = None
    exit_code: int | None = None
    """-N: ended by signal N. None while it runs, and where it is not known: its keeper ended with it."""
    process: dict[str, Any] | None = None
    """The ProcessId of the run; None before it has one."""
    starts: int = 0
    """How often a keeper was sent; more than once only where one did not come up."""
    asked: str | None = None
    """When the run was asked to save and leave."""
    step: int | None = None
    """The last optimizer step that its log tells of, and how many there are in all."""
    steps: int | None = None


@dataclass(slots=True)
class Job:
    """A run that is to be made. All paths are absolute."""

    number: int
    name: str
    created: str
    command: list[str]
    directory: str
    source: str | None
    overrides: list[str]
    output_dir: str | None
    devices: list[str]
    """What CUDA_VISIBLE_DEVICES is set to; empty: all devices, and no other job beside it."""
    retries: int
    retries_left: int
    after: list[int]
    """Jobs that have to be done before."""
    order: int
    """The smallest is next; the number breaks ties."""
    state: State = "queued"
    wish: Wish | None = None
    not_before: str | None = None
    """A pause after an attempt that failed."""
    interruptions: int = 0
    """Attempts in a row that were interrupted and came no further than the one before."""
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def last(self) -> Attempt | None:
        return self.attempts[-1] if self.attempts else None


def write_job(folder: Path, job: Job) -> None:
    """Write `job.json`, whole or not at all."""
    write_json(folder / "job.json", {"format": FORMAT, **asdict(job)})


def read_job(folder: Path) -> Job | None:
    """The job of a folder; None where there is none that this version can read."""
    values = read_json(folder / "job.json")
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
        return None
    try:
        return Job(**{**values, "attempts": [Attempt(**attempt) for attempt in values["attempts"]]})
    except (KeyError, TypeError):
        return None
