"""The keeper of one run: starts it, holds the lock of its job, waits, and writes down the exit code.

It is a process of its own (`python -m tunesmith.runs.queue.keeper FOLDER ATTEMPT`), so that a run outlives the runner,
and so that whoever comes later can learn how it ended. Two keepers of one attempt start one run: the second finds the
lock taken, or what the first has written. The run is given the lock as well: as long as it lives, nobody starts it
again, also if its keeper is killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from tunesmith.core.errors import MachineError, Problem
from tunesmith.core.files import read_json, write_json
from tunesmith.core.process import ProcessId
from tunesmith.runs.queue.job import Job, moment, read_job
from tunesmith.runs.queue.lock import Lock

__all__ = ["environment_of", "keep"]

_LATE = 5.0  # seconds to wait for the lock: the runner holds it for moments while it looks
_FORWARDED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


def keep(folder: Path, number: int) -> None:
    """Start attempt `number` of the job in `folder` and wait for its end, unless that is or was done already."""
    lock = Lock(folder / "lock", create=False)
    try:
        if not lock.take(_LATE):
            return
    except FileNotFoundError:  # the job was removed
        return
    records = folder / f"{number}.process.json", folder / f"{number}.exit.json"
    job = read_job(folder)
    if not _is_meant(job, number) or any(path.exists() for path in records):
        return
    assert job is not None
    process: dict[str, Any] = {"keeper": ProcessId.of().to_dict(), "process": None}
    write_json(records[0], process)
    code = _Run(folder, job, number, lock).wait(lambda run: write_json(records[0], {**process, "process": run}))
    _write_in_the_end(records[1], {"exit_code": code, "ended": moment()})


def _is_meant(job: Job | None, number: int) -> bool:
    return job is not None and job.state == "running" and job.attempts[-1].number == number


def environment_of(job: Job, environment: Mapping[str, str]) -> dict[str, str]:
    """What a run of a job sees: the variables of who added it, and its devices, numbered as `nvidia-smi` does."""
    if not job.devices:
        return dict(environment)
    return {**environment, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(job.devices)}


class _Run:
    """The run as a child in a process group of its own. Signals that ask it to leave are handed on to it alone: its
    own helpers (loaders) have to live until it has saved."""

    def __init__(self, folder: Path, job: Job, number: int, lock: Lock) -> None:
        self._asked: list[int] = []
        self._child: subprocess.Popen[bytes] | None = None
        for name in _FORWARDED:
            signal.signal(name, self._hand_on)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        environment = read_json(folder / "environment.json")
        with (folder / f"{number}.log").open("ab") as log:
            try:
                self._child = subprocess.Popen(
                    job.command,
                    cwd=job.directory,
                    env=environment_of(job, environment if isinstance(environment, dict) else {}),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[lock.fileno()],
                    process_group=0,
                )
            except OSError as error:
                what = f"the run cannot be started: {error.strerror}"
                fix = "bring the folder or the program back, then: tunesmith queue resume " + str(job.number)
                problem = Problem("E-QUEUE-007", what, str(error.filename or job.command[0]), fix=fix)
                log.write(f"{MachineError(problem)}\n".encode())
        for number_asked in self._asked:
            self._hand_on(number_asked, None)

    def _hand_on(self, name: int, _frame: FrameType | None) -> None:
        if self._child is None:
            self._asked.append(name)
        elif self._child.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self._child.pid, name)

    def wait(self, record: Any) -> int:
        """The exit code, -N for signal N. `record` is given the run's ProcessId."""
        if self._child is None:
            return MachineError.exit_code
        with suppress(ProcessLookupError):  # over already
            record(ProcessId.of(self._child.pid).to_dict())
        code = self._child.wait()
        if code < 0:  # it could not end its helpers itself; while there are any, their group's number stays theirs
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, signal.SIGKILL)
        return code


def _write_in_the_end(path: Path, value: Mapping[str, Any]) -> None:
    """Write a record, on a full disk as soon as there is room. The lock is held meanwhile: nobody takes it for lost."""
    for _ in range(3600):
        try:
            write_json(path, value)
        except OSError:
            time.sleep(1)
        else:
            return
    print(f"no room for {path}: {json.dumps(dict(value))}", file=sys.stderr)


if __name__ == "__main__":
    keep(Path(sys.argv[1]), int(sys.argv[2]))
