"""The folder of the queue: what is in it, and what a user does to it. Every change is made under its lock."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunesmith.core import env
from tunesmith.core.errors import OutputError, Problem, UnavailableError, UsageError
from tunesmith.core.files import read_json, write_atomically, write_json
from tunesmith.core.process import ProcessId
from tunesmith.runs.queue.job import FORMAT, Job, Wish, moment, read_job, write_job
from tunesmith.runs.queue.lock import Lock, is_held

__all__ = ["Queue"]

_WAIT = 60.0  # seconds for the lock; it is held for milliseconds
_SETTLED = 2.0  # seconds: coarser than any file system's clock
_CAN_RESUME = ("paused", "stopped", "failed")


class Queue:
    """Jobs in a folder, by default that of the user. Methods that change something hold the lock while they do."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or env.home_dir() / "queue").absolute()
        self._read: dict[Path, tuple[tuple[int, int], Job]] = {}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else changes jobs meanwhile. Raises OutputError, UnavailableError."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # configs and environments hold tokens
            lock = Lock(self.folder / "lock")
            taken = lock.take(_WAIT)
        except OSError as error:
            what = f"the folder of the queue cannot be used: {error.strerror}"
            fix = "set TUNESMITH_HOME to a folder that can be written"
            raise OutputError(Problem("E-QUEUE-005", what, str(self.folder), fix=fix)) from error
        if not taken:
            what, fix = "another process does not let go of the queue", "end it; it may be stopped"
            raise UnavailableError(Problem("E-QUEUE-004", what, str(lock.path), fix=fix))
        try:
            yield
        finally:
            lock.drop()

    # What is there

    def folder_of(self, number: int) -> Path:
        return self.folder / str(number)

    def jobs(self) -> list[Job]:
        """All jobs that can be read, the next one first. Files that have not changed are not read again."""
        found = [job for folder in self._folders() if (job := self._job(folder)) is not None]
        return sorted(found, key=lambda job: (job.order, job.number))

    def unreadable(self) -> list[Path]:
        """Files of jobs that another version has written, or that are damaged."""
        return [path for folder in self._folders() if (path := folder / "job.json").exists() and not self._job(folder)]

    def get(self, number: int) -> Job:
        """Raises UsageError if there is no such job."""
        if (job := self._job(self.folder_of(number))) is None:
            there = ", ".join(str(job.number) for job in sorted(self.jobs(), key=lambda job: job.number)[-10:])
            fix = f"there is: {there}" if there else "the queue is empty"
            raise UsageError(Problem("E-QUEUE-001", f"there is no job {number}", str(self.folder), fix=fix))
        return job

    @property
    def paused(self) -> bool:
        return bool(self._settings().get("paused"))

    def has_runner(self) -> bool:
        """Whether a process is at work that starts jobs."""
        return is_held(self.folder / "runner.lock")

    def runner(self) -> ProcessId | None:
        """Which process that is, where it has written it down."""
        if not self.has_runner():
            return None
        try:
            return ProcessId.from_dict(read_json(self.folder / "runner.json"))
        except (KeyError, TypeError, ValueError):
            return None

    def forget(self) -> None:
        """Read all files anew: jobs in memory were changed, and not written."""
        self._read.clear()

    def _folders(self) -> list[Path]:
        try:
            return [Path(entry.path) for entry in os.scandir(self.folder) if entry.name.isdecimal()]
        except FileNotFoundError:
            return []

    def _job(self, folder: Path) -> Job | None:
        path = folder / "job.json"
        try:
            status = path.stat()
        except OSError:
            return None
        stamp = (status.st_mtime_ns, status.st_ino)
        known = self._read.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        job = read_job(folder)
        # Of a file that was just written another version may bear the same time.
        if job is not None and time.time() - status.st_mtime > _SETTLED:
            self._read[path] = (stamp, job)
        return job

    def _settings(self) -> dict[str, Any]:
        found = read_json(self.folder / "queue.json")
        return found if isinstance(found, dict) else {}

    def _set(self, **values: Any) -> None:
        write_json(self.folder / "queue.json", {"format": FORMAT, **self._settings(), **values})

    # What changes; `write` within `locked`, the others take the lock

    def write(self, job: Job) -> None:
        write_job(self.folder_of(job.number), job)

    def add(
        self,
        command: Callable[[Path], list[str]],
        *,
        config: str,
        directory: Path,
        environment: Mapping[str, str],
        name: str,
        source: str | None = None,
        overrides: Sequence[str] = (),
        output_dir: str | None = None,
        devices: Sequence[str] = (),
        retries: int = 2,
        after: Sequence[int] = (),
        front: bool = False,
    ) -> Job:
        """Put a run at the end of the queue, or at its front. `command` is given the path of the config's copy.

        The job is there, or it is not: its file is written last. Raises UsageError if `after` names no job.
        """
        with self.locked():
            for other in after:
                if self.get(other).wish == "remove":
                    raise UsageError(Problem("E-QUEUE-001", f"job {other} is being removed", fix="name another one"))
            number = 1 + max([self._settings().get("last", 0), *(int(path.name) for path in self._folders())])
            self._set(last=number)  # numbers are not used again, also not those of jobs that were removed
            folder = self.folder_of(number)
            folder.mkdir()
            write_atomically(folder / "config.yaml", config)
            write_json(folder / "environment.json", dict(environment))
            (folder / "lock").touch()
            job = Job(
                number=number,
                name=name,
                created=moment(),
                command=command(folder / "config.yaml"),
                directory=str(directory.absolute()),
                source=source,
                overrides=list(overrides),
                output_dir=output_dir,
                devices=list(devices),
                retries=retries,
                retries_left=retries,
                after=list(after),
                order=min([number, *(one.order for one in self.jobs())]) - 1 if front else number,
            )
            self.write(job)
            return job

    def pause(self, numbers: Sequence[int] = (), *, now: bool = False) -> list[Job]:
        """Pause jobs, or without any the queue. With `now` what runs is to save and leave: the jobs that are returned.

        Raises UsageError for one that runs, without `now`, and for one that neither waits nor runs.
        """
        with self.locked():
            chosen = [self.get(number) for number in numbers] or [job for job in self.jobs() if job.state == "running"]
            if numbers:
                self._refuse(chosen, ("queued", "paused", *(["running"] if now else [])), "paused")
            else:
                self._set(paused=True)
            leaving = []
            for job in chosen:
                if job.state == "running" and now:
                    leaving.append(self._wish(job, "pause" if numbers else "requeue"))
                elif job.state == "queued":
                    job.state, job.not_before = "paused", None
                    self.write(job)
            return leaving

    def resume(self, numbers: Sequence[int] = ()) -> list[Job]:
        """Queue paused, stopped and failed jobs again, with all their retries; without any, the queue goes on.

        Raises UsageError for a job that is not one of these.
        """
        with self.locked():
            chosen = [self.get(number) for number in numbers]
            self._refuse(chosen, _CAN_RESUME, "resumed")
            for job in chosen:
                job.state, job.not_before, job.retries_left, job.interruptions = "queued", None, job.retries, 0
                self.write(job)
            if not numbers:
                self._set(paused=False)
            return chosen

    def remove(self, numbers: Sequence[int], *, stop: bool = False) -> list[Job]:
        """Remove jobs. With `stop` those that run save and leave first: they are returned, and the runner removes them.

        Raises UsageError for one that runs, without `stop`, and for one that others wait for, unless it is done.
        """
        with self.locked():
            chosen = [self.get(number) for number in dict.fromkeys(numbers)]
            if not stop:
                self._refuse(chosen, ("queued", "done", *_CAN_RESUME), "removed")
            going = {job.number for job in chosen}
            waiting = [job for job in self.jobs() if job.number not in going]
            needed = {number for job in waiting if job.state != "done" for number in job.after}
            if held := [job for job in chosen if job.state != "done" and job.number in needed]:
                names = ", ".join(str(job.number) for job in waiting if held[0].number in job.after)
                what = f"job {held[0].number} is what others wait for: {names}"
                raise UsageError(Problem("E-QUEUE-003", what, fix="remove those too"))
            leaving = [self._wish(job, "remove") for job in chosen if job.state == "running"]
            for job in chosen:
                if job.state != "running":
                    self.drop(job)
            return leaving

    def drop(self, job: Job) -> None:
        """Remove a job that does not run; who waited for it (it is done) waits no more. Within `locked`."""
        for other in self.jobs():
            if job.number in other.after:
                other.after.remove(job.number)
                self.write(other)
        folder = self.folder_of(job.number)
        (folder / "job.json").unlink()  # from here on there is no job; the rest can go in any order
        shutil.rmtree(folder, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what an addition or a removal that was cut off has left. Within `locked`."""
        for folder in self._folders():
            if not (folder / "job.json").exists():
                shutil.rmtree(folder, ignore_errors=True)

    def _wish(self, job: Job, wish: Wish) -> Job:
        # Who wants a job to go wants it more than who wants it to wait.
        job.wish = "remove" if job.wish == "remove" else wish
        self.write(job)
        return job

    def _refuse(self, chosen: Sequence[Job], states: Sequence[str], what: str) -> None:
        for job in chosen:
            if job.state not in states:
                fix = _FIXES.get((job.state, what), f"only jobs that are {' or '.join(states)} can be {what}")
                raise UsageError(Problem("E-QUEUE-002", f"job {job.number} is {job.state}", fix=fix))


_FIXES = {
    ("running", "paused"): "--now has it save and leave first",
    ("running", "removed"): "--stop has it save and leave first",
}
