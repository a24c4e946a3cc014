"""Ask a running job to stop or to save, and wait until it has."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from tunesmith.core import control
from tunesmith.core.errors import Problem, UnavailableError, UsageError
from tunesmith.core.process import ProcessId
from tunesmith.runs import manifest
from tunesmith.runs.row import Row, row_of

__all__ = ["KILLED", "save_now", "stop", "stop_now"]

KILLED = 128 + 9
"""Exit code, as shells count it, of a process that was killed."""

_LOOK = 0.2  # seconds between two looks
_GRACE = 10.0  # seconds to leave at once, before it is killed
_BETWEEN = 0.05  # seconds between the two interrupts that mean "at once": less than a step, more than none


def stop(row: Row, timeout: float) -> Row:
    """Let the run save a checkpoint at the next step's edge and leave; the row afterwards.

    Raises UsageError where it does not go on, UnavailableError where it has not left after `timeout` seconds.
    """
    process = _process(row)
    _note(row)
    if not (process.is_here and _send(process, signal.SIGTERM)):
        control.ask(row.folder, "stop-and-save")
    return _wait(row, lambda now: not now.goes_on, timeout, "stops after its current step")


def stop_now(row: Row) -> Row:
    """Let the run leave at once, without saving; kill it where it does not within a few seconds.

    Raises UsageError where it does not go on, or runs on another machine.
    """
    process = _process(row)
    if not process.is_here:
        what = f"the run is on another machine ({process.host}): it can be stopped at once only there"
        raise UsageError(Problem("E-RUN-005", what, fix="tunesmith runs stop without --now asks it to save and leave"))
    _note(row)
    if _send(process, signal.SIGINT):
        time.sleep(_BETWEEN)
        _send(process, signal.SIGINT)
    code = None  # of a process that left without a word nobody knows it
    try:
        now = _wait(row, lambda now: not process.is_alive, _GRACE, "")
    except UnavailableError:
        _kill(process)
        code = KILLED
        now = _wait(row, lambda now: not process.is_alive, _GRACE, "does not end although it was killed")
    if now.status != "died":
        return now
    with manifest.changing(row.folder) as found:
        manifest.add_event(found, "left_at_once" if code is None else "killed", step=now.done)
        found.update(status="stopped", exit_code=code)
    return _now(row)


def save_now(row: Row, timeout: float) -> Row:
    """Let the run save a checkpoint at the next step's edge and go on.

    Raises UsageError where it does not go on, UnavailableError where it has not saved after `timeout` seconds.
    """
    _process(row)
    control.ask(row.folder, "save")
    return _wait(
        row,
        lambda now: control.asked(now.folder) is None or not now.goes_on,
        timeout,
        "saves at the end of its current step",
    )


def _note(row: Row) -> None:
    """A signal does not tell who sent it, and what the system stops the queue begins again."""
    with manifest.changing(row.folder) as found:
        manifest.add_event(found, "stop_asked")


def _process(row: Row) -> ProcessId:
    process = row.process_id
    if not row.goes_on or process is None:
        what = f"the run {row.id} does not go on: {row.status}"
        raise UsageError(Problem("E-RUN-004", what, row.output_dir, fix="tunesmith runs ls --status running"))
    return process


def _send(process: ProcessId, number: int) -> bool:
    """False where it belongs to somebody else. One that is gone by now needs no signal."""
    try:
        if process.is_alive:
            os.kill(process.pid, number)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return True


def _kill(process: ProcessId) -> None:
    """The process with what it started; where it shares a group with others (a script), the process alone."""
    with suppress(ProcessLookupError, PermissionError):
        if process.is_alive and os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            _send(process, signal.SIGKILL)


def _now(row: Row) -> Row:
    return row_of(row.id, row.folder) or replace(row, gone=True)


def _wait(row: Row, done: Callable[[Row], bool], timeout: float, otherwise: str) -> Row:
    end = time.monotonic() + timeout
    while not done(now := _now(row)):
        if time.monotonic() >= end:
            what = f"the run {row.id} has not answered within {timeout:g} s; it was asked, and {otherwise}"
            fix = "wait, with --timeout SECONDS or by tunesmith runs show; --now does not wait"
            raise UnavailableError(Problem("E-RUN-006", what, got=f"{now.status} at step {now.done}", fix=fix))
        time.sleep(_LOOK)
    return _now(row)  # what it wrote last, between the look at the record and the one at the process
