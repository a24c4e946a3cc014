"""The runner: the one process of a queue that starts jobs and settles what became of them.

It keeps nothing that is not in files, so that it may be killed at any time; the next one goes on. A job runs as long
as its lock is held (by its keeper or by the run), whatever its process number is. Each of its turns is made under the
queue's lock:

    running, lock held        noted, and asked to leave if the user wants that
    running, exit code there  settled (rules.py): done, failed, queued again, ...
    running, lock free, no exit code, a run was begun      interrupted: the machine went down, or both were killed
    running, lock free, no run was begun                   the runner before was killed: a keeper is sent again
    queued, and its turn      written down as running, then a keeper is sent
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import BinaryIO

from tunesmith.core.errors import Problem, UsageError
from tunesmith.core.files import read_json, write_json
from tunesmith.core.process import ProcessId
from tunesmith.runs.queue.job import Attempt, Job, moment
from tunesmith.runs.queue.lock import Lock, hold
from tunesmith.runs.queue.rules import may_start, settle, something_to_do
from tunesmith.runs.queue.store import Queue
from tunesmith.runs.queue.view import asked_by_user, how_it_ended, progress

__all__ = ["Runner", "start_in_background"]

_MOST_STARTS = 3  # keepers that are sent for an attempt and do not come up
_MOST_LOG = 1_000_000  # bytes


class Runner:
    """`pause`: seconds of the first pause before another try. `poll`: seconds between two looks."""

    def __init__(
        self, queue: Queue, *, poll: float = 1.0, pause: float = 10.0, say: Callable[[str], None] = lambda line: None
    ) -> None:
        self.queue = queue
        self._poll = poll
        self._pause = pause
        self._say = say
        self._keepers: dict[tuple[int, int], subprocess.Popen[bytes]] = {}
        self._leave = threading.Event()
        self._lock: Lock | None = None

    def run(self, *, until_empty: bool = False) -> None:
        """Start jobs until SIGTERM, or until nothing is left that could run. Runs go on without their runner.

        Raises UsageError if another runner is at work.
        """
        with self.queue.locked():  # creates the folder
            self._lock = Lock(self.queue.folder / "runner.lock")
            if not self._lock.take(1.0):  # others hold it for moments, to look
                who = self.queue.runner() or "another process"
                fix = "nothing: it starts what is queued; tunesmith queue ls shows it"
                raise UsageError(Problem("E-QUEUE-008", f"a runner is at work already: {who}", fix=fix))
            write_json(self.queue.folder / "runner.json", ProcessId.of().to_dict())
            self.queue.sweep()
            self._say(f"jobs of {self.queue.folder}")
            for job in self.queue.jobs():
                if job.state == "running":
                    self._say(f"job {job.number} ({job.name}) was started by an earlier runner")
        try:
            with self._signals():
                while self.turn(until_empty) and not self._leave.wait(self._poll):
                    pass
            if not self._leave.is_set():  # what they had to write is written; they are on their way out
                for keeper in self._keepers.values():
                    keeper.wait()
        finally:
            self._lock.drop()

    def turn(self, until_empty: bool = False) -> bool:
        """Look once and do what is to be done. Returns False, and is the runner no more, when nothing is left."""
        try:
            with self.queue.locked():
                for job in self.queue.jobs():
                    if job.state == "running":
                        self._look_after(job)
                jobs, paused = self.queue.jobs(), self.queue.paused
                for job in [] if paused or self._leave.is_set() else list(may_start(jobs, datetime.now(UTC))):
                    self._begin(job)
                if until_empty and not something_to_do(jobs, paused):
                    if self._lock:  # within the queue's lock: who adds a job after this finds no runner
                        self._lock.drop()
                    return False
        except OSError as error:  # a full disk; the files still say what is so
            self.queue.forget()
            self._say(f"warning: {error}; trying again")
        self._reap()
        return True

    def _begin(self, job: Job) -> None:
        with hold(self.queue.folder_of(job.number) / "lock") as free:
            if not free:  # helpers of an earlier attempt that have not ended yet
                return
            job.state, job.not_before = "running", None
            job.attempts.append(Attempt(len(job.attempts) + 1, moment()))
            self._say(f"job {job.number} ({job.name}) starts, attempt {len(job.attempts)}")
            self._send(job)

    def _send(self, job: Job) -> None:
        """Send a keeper for the last attempt. What is written first has it sent again if we end before it is."""
        attempt = job.attempts[-1]
        attempt.starts += 1
        self.queue.write(job)
        with (self.queue.folder_of(job.number) / f"{attempt.number}.log").open("ab") as log:
            words = ["tunesmith.runs.queue.keeper", str(self.queue.folder_of(job.number)), str(attempt.number)]
            self._keepers[job.number, attempt.number] = _detached(words, log)

    def _look_after(self, job: Job) -> None:
        folder, attempt = self.queue.folder_of(job.number), job.attempts[-1]
        # In this order: a process that was seen, then a free lock, then no exit code: it left without a word.
        begun = read_json(folder / f"{attempt.number}.process.json")
        with hold(folder / "lock") as free:  # while it is ours, no keeper begins
            ended = read_json(folder / f"{attempt.number}.exit.json")
            if begun and begun["process"] and attempt.process is None:
                attempt.process = begun["process"]
                self.queue.write(job)
            if ended:
                self._settle(job, ended["exit_code"], ended["ended"])
            elif not free:
                self._ask(job)
            elif begun:
                self._settle(job, None, moment())
            elif not self._is_coming(job):
                if attempt.starts < _MOST_STARTS:
                    self._send(job)
                else:
                    attempt.ended, job.state = moment(), "failed"
                    self._close(job)

    def _is_coming(self, job: Job) -> bool:
        """Whether the keeper that we have sent is on its way."""
        keeper = self._keepers.get((job.number, job.attempts[-1].number))
        return keeper is not None and keeper.poll() is None

    def _settle(self, job: Job, exit_code: int | None, ended: str) -> None:
        where = progress(job)
        settle(
            job,
            exit_code,
            step=where.step if where else None,
            by_user=asked_by_user(job),
            now=datetime.now(UTC),
            unit=self._pause,
        )
        job.attempts[-1].ended, job.attempts[-1].steps = ended, where.total if where else None
        self._close(job)

    def _close(self, job: Job) -> None:
        words = how_it_ended(self.queue, job)
        wish, job.wish = job.wish, None
        if wish == "remove":
            self.queue.drop(job)
            self._say(f"job {job.number} ({job.name}) has left and is removed")
            return
        self.queue.write(job)
        self._say(f"job {job.number} ({job.name}): {job.state}{', ' + words if words else ''}")

    def _ask(self, job: Job) -> None:
        """Have a run save and leave, once, if the user wants something that needs it."""
        attempt = job.attempts[-1]
        if job.wish is None or attempt.asked or attempt.process is None:
            return
        process = ProcessId.from_dict(attempt.process)
        if process.is_alive:  # and not another one of its number
            os.kill(process.pid, signal.SIGTERM)
            attempt.asked = moment()
            self.queue.write(job)
            self._say(f"job {job.number} ({job.name}) is asked to save and leave")

    def _reap(self) -> None:
        self._keepers = {key: keeper for key, keeper in self._keepers.items() if keeper.poll() is None}

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM ends the runner between two turns; a terminal that is closed does not."""
        before = {
            signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: self._leave.set()),
            signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_IGN),
        }
        try:
            yield
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)


def start_in_background(queue: Queue) -> bool:
    """Start a runner that outlives this process and its shell, and ends when nothing is left that could run.

    Returns False if one is at work. Two that are started at once do no harm: the second ends.
    """
    if queue.has_runner():
        return False
    path = queue.folder / "runner.log"
    with path.open("ab") as log:
        if log.tell() > _MOST_LOG:
            log.truncate(0)
        _background.append(_detached(["tunesmith", "queue", "run", "--once"], log))
    return True


_background: list[subprocess.Popen[bytes]] = []  # kept until the end: nobody waits for them


def _detached(words: list[str], log: BinaryIO) -> subprocess.Popen[bytes]:
    """`python -m WORDS` in a session of its own, without a terminal. The current folder holds no modules for it."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", *words],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
