"""What an exit code means for a job, and which job is next. Pure functions of jobs and the time."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from tunesmith.runs.queue.job import Job, State, moment

__all__ = [
    "MOST_INTERRUPTIONS",
    "Verdict",
    "in_vain",
    "is_due",
    "may_start",
    "pause_after",
    "settle",
    "something_to_do",
    "verdict",
]

Verdict: TypeAlias = Literal["done", "failed", "interrupted", "again"]

# Exit codes of a run (tunesmith.core.errors) that another try would not mend: usage, data, a missing input, an output
# folder that cannot be, a loss that is not finite, a machine that lacks something.
_FAILED = (2, 65, 66, 73, 76, 78)
# A run that was asked to leave: it says so, or it was too early for it to know the signal.
_ASKED = (75, 130, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, -signal.SIGUSR1)
_VERDICTS: dict[int | None, Verdict] = {
    0: "done",
    **dict.fromkeys(_FAILED, "failed"),
    **dict.fromkeys(_ASKED, "interrupted"),
    None: "interrupted",  # run and keeper are gone without a word: the machine went down
}

MOST_INTERRUPTIONS = 5
"""In a row and without progress; each further one costs a retry."""
_LONGEST_PAUSE = 90  # in units of the first pause: 15 minutes if that is 10 seconds


def verdict(exit_code: int | None) -> Verdict:
    """What an exit code says. All that the table does not hold may go better another time: "again"."""
    return _VERDICTS.get(exit_code, "again")


def pause_after(count: int, unit: float) -> float:
    """Seconds to wait after the `count`th failure (from 1): unit, 4 units, 16 units, ... up to 90 units."""
    return unit * min(4.0 ** (count - 1), _LONGEST_PAUSE)


def settle(job: Job, exit_code: int | None, *, step: int | None, by_user: bool, now: datetime, unit: float) -> None:
    """Write into a running job what became of its attempt.

    `step`: how far it came. `by_user`: it was asked to leave by someone who did not ask the queue. `unit`: seconds of
    the first pause. A wish of the user decides where the run could go on; taking it off the job is left to the caller.
    """
    attempt = job.attempts[-1]
    before = max((one.step or 0 for one in job.attempts[:-1]), default=0)
    attempt.ended, attempt.exit_code, attempt.step = moment(now), exit_code, step
    job.not_before = None
    what = verdict(exit_code)
    if what in ("done", "failed"):
        job.state = "done" if what == "done" else "failed"
    elif job.wish == "pause":
        job.state = "paused"
    elif what == "interrupted" and job.wish == "requeue":
        job.state = "queued"
    elif by_user or job.wish == "remove":
        job.state = "stopped"
    elif what == "interrupted":
        job.interruptions = 1 if (step or 0) > before else job.interruptions + 1
        if job.interruptions <= MOST_INTERRUPTIONS:
            job.state = "queued"
            if job.interruptions > 1:
                _wait(job, job.interruptions - 1, now, unit)
        else:
            _try_again(job, now, unit)
    else:
        _try_again(job, now, unit)


def _try_again(job: Job, now: datetime, unit: float) -> None:
    if job.retries_left <= 0:
        job.state = "failed"
        return
    job.retries_left -= 1
    job.state = "queued"
    _wait(job, job.retries - job.retries_left, now, unit)


def _wait(job: Job, count: int, now: datetime, unit: float) -> None:
    job.not_before = moment(now + timedelta(seconds=pause_after(count, unit)))


def is_due(job: Job, now: datetime) -> bool:
    return job.not_before is None or now >= datetime.fromisoformat(job.not_before)


def may_start(jobs: Sequence[Job], now: datetime) -> Iterator[Job]:
    """The queued jobs, of all `jobs` in their order, that may start now.

    A job has its devices for itself, or all of them if it names none. One that waits for devices keeps them from those
    behind it, so that it is not overtaken for ever; one that waits for its time or for another job does not.
    """
    by_number = {job.number: job for job in jobs}
    taken: set[str] | None = set()
    for job in jobs:
        if job.state == "running":
            taken = _with(taken, job)
    for job in jobs:
        if job.state != "queued" or not is_due(job, now) or not _is_free_to_go(job, by_number):
            continue
        if taken is not None and (taken.isdisjoint(job.devices) if job.devices else not taken):
            yield job
        taken = _with(taken, job)


def _with(taken: set[str] | None, job: Job) -> set[str] | None:
    """Devices that are taken with those of a job; None for all."""
    return None if taken is None or not job.devices else taken | set(job.devices)


def _is_free_to_go(job: Job, by_number: Mapping[int, Job]) -> bool:
    return all(number in by_number and by_number[number].state == "done" for number in job.after)


def in_vain(jobs: Iterable[Job]) -> set[int]:
    """Numbers of jobs that wait for one that will not be done unless somebody does something about it."""
    found: set[int] = set()
    states: dict[int, State] = {}
    for job in sorted(jobs, key=lambda job: job.number):  # a job waits for earlier ones only
        states[job.number] = job.state
        if job.state == "queued" and any(
            number in found or states.get(number) not in ("queued", "running", "done") for number in job.after
        ):
            found.add(job.number)
    return found


def something_to_do(jobs: Sequence[Job], paused: bool) -> bool:
    """Whether a runner has anything to wait for."""
    if any(job.state == "running" for job in jobs):
        return True
    vain = in_vain(jobs)
    return not paused and any(job.state == "queued" and job.number not in vain for job in jobs)
