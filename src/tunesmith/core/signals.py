"""Signals that ask a run to stop.

SIGTERM, SIGUSR1 and the first SIGINT ask; SIGHUP does where a terminal was closed, and means nothing to a process
without one. What happens then depends on where the run is: where nothing can be lost StopAsked is raised at once
(preparing, waiting for data); elsewhere `asked` says it, and the training loop looks at it after each step.

A second signal means now. It, and a request that the run does not come to within `grace` seconds, end the process from
a thread of its own, which also works while the main thread is within a long call of a library: Python hands signals to
the main thread only between two of its instructions, but writes their numbers to a file descriptor at once.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

from tunesmith.core.errors import PreemptedError, Problem, TunesmithError

__all__ = ["GRACE", "StopAsked", "StopSignals", "current_signals", "ignore_in_worker"]

GRACE = 25.0
"""Seconds between a request to stop and the end of the process: schedulers mostly give 30."""

_NAMES = ("SIGTERM", "SIGUSR1", "SIGINT", "SIGHUP")
# A launcher passes on what the terminal or the scheduler sends to all processes: one request, which arrives twice.
_SAME_REQUEST = 0.5
_TO_LEAVE = 1.0  # seconds that the main thread has after a second signal
_INTERRUPTED = 130


class StopAsked(KeyboardInterrupt):
    """Raised in the main thread by a signal. As KeyboardInterrupt it passes through `except Exception` of libraries."""

    exit_code = PreemptedError.exit_code  # what it becomes


_MOMENT = 0.02  # seconds


def _imports(frame: FrameType | None) -> bool:
    """Whether what runs is being imported by this package, at whatever depth."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        if frame.f_globals.get("__name__", "").startswith("tunesmith.") and frame.f_code.co_name != "<module>":
            return False
        frame = frame.f_back
    return False


class StopSignals:
    """`with StopSignals() as signals:` handles them until the end of the block, and raises PreemptedError there for a
    StopAsked that nobody caught. Within another one, and outside the main thread, it changes nothing but `grace`."""

    def __init__(self, grace: float = GRACE) -> None:
        self.grace = grace
        self.asked: str | None = None
        """Name of the signal that asked."""
        self.at_once = True
        """Whether a signal raises StopAsked. Set to False where a stop in the middle would lose something."""
        self._since = 0.0
        self._deadline: float | None = None
        self._leaving = self._interrupted = False
        self._alarm: Any = None  # the handler that was there before ours
        self._before: dict[int, Any] = {}
        self._others: set[int | None] = set()
        self._read: socket.socket | None = None

    # ---- handlers ----

    def __enter__(self) -> StopSignals:
        global _current
        if _current is not None:
            _current.grace = self.grace
            return _current
        if threading.current_thread() is not threading.main_thread():
            return self
        self._others = {child.pid for child in multiprocessing.active_children()}
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for number in _numbers():
            # What the parent has ignored stays so: nohup, and jobs in the background of a shell.
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                ignored = number == getattr(signal, "SIGHUP", None) and _is_detached()
                self._before[number] = signal.signal(number, signal.SIG_IGN if ignored else self._handle)
        threading.Thread(target=self._watch, args=(self._read,), name="signals", daemon=True).start()
        _current = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _current
        torn = self.at_once and self.asked and isinstance(error, Exception) and not isinstance(error, TunesmithError)
        if _current is self and self._read is not None:
            self.at_once = False
            self._forget_alarm()
            _current = None
            signal.set_wakeup_fd(self._wakeup)
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._write.shutdown(socket.SHUT_WR)  # the thread reads the end, and ends, whoever else holds this
            self._write.close()
        if isinstance(error, StopAsked):
            raise PreemptedError(_nothing_trained(str(error))) from None
        if torn:  # a library swallowed the StopAsked in the middle of an import, and what is half imported failed later
            raise PreemptedError(_nothing_trained(str(self.asked))) from error
        if self._leaving:
            self._end_children()
        if self._leaving and isinstance(error, KeyboardInterrupt) and self.asked != "SIGINT":
            raise PreemptedError(_left_at_once(self.asked)) from None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """In the main thread."""
        if self._leaving:
            if self._interrupted:  # a signal may arrive twice here: by itself, and from the thread
                return
            self._interrupted = True
            raise KeyboardInterrupt
        name = signal.Signals(number).name
        self.asked = self.asked or name
        if self.at_once:
            self._stop(frame)

    def _stop(self, frame: FrameType | None) -> None:
        """Raise StopAsked, but not within an import: a library may swallow it there and stay half imported, and one in
        C++ ends the process (pybind11 in torch). Then it is tried again a moment later."""
        if self._alarm is not None:  # it will be
            return
        if not _imports(frame) or not hasattr(signal, "setitimer"):
            raise StopAsked(self.asked)
        self._alarm = signal.signal(signal.SIGALRM, self._again)
        signal.setitimer(signal.ITIMER_REAL, _MOMENT)

    def _again(self, _: int, frame: FrameType | None) -> None:
        self._forget_alarm()
        if self.at_once and not self._leaving:
            self._stop(frame)

    def _forget_alarm(self) -> None:
        if self._alarm is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._alarm)
            self._alarm = None

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A signal within, and one that has come before, raises StopAsked: nothing is lost by leaving here."""
        before, self.at_once = self.at_once, True
        try:
            if self.asked is not None:
                raise StopAsked(self.asked)
            yield
        finally:
            self.at_once = before

    # ---- the thread that sees to it that the process ends ----

    def _watch(self, read: socket.socket) -> None:
        with read:
            while True:
                left = None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)
                if not select.select([read], [], [], left)[0]:
                    self._end()
                numbers = read.recv(64)
                if not numbers:
                    return
                for number in numbers:
                    if number in self._before:
                        self._note(number)

    def _note(self, number: int) -> None:
        now = time.monotonic()
        if self._deadline is None:
            self.asked = self.asked or signal.Signals(number).name
            self._since, self._deadline = now, now + self.grace
        elif self._leaving or (number != signal.SIGINT and now - self._since < _SAME_REQUEST):
            return
        else:
            self._leaving = True
            self._deadline = now + _TO_LEAVE
            signal.raise_signal(number)  # for the main thread, which may have handled the one that came

    def _end(self) -> None:
        self._end_children()
        if not self._leaving:
            text = f"{_grace_is_over(self.asked, self.grace)}\nmore:  tunesmith explain E-TRAIN-065\n"
            with suppress(OSError):
                os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode())
        os._exit(_INTERRUPTED if self._leaving and self.asked == "SIGINT" else PreemptedError.exit_code)

    def _end_children(self) -> None:
        """Those that began since; they do not listen to these signals, and the end of the process would wait."""
        for child in multiprocessing.active_children():
            if child.pid not in self._others:
                child.kill()


_current: StopSignals | None = None


def current_signals() -> StopSignals:
    """Those that are handled now; without any, such that nobody asks."""
    return _current or StopSignals()


def _numbers() -> list[int]:
    """Of the signals that this system has."""
    return [int(getattr(signal, name)) for name in _NAMES if hasattr(signal, name)]


def _is_detached() -> bool:
    """Whether no terminal can be closed on this process."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
        return not os.isatty(0)
    except OSError:
        return True


def ignore_in_worker(_number: int = 0) -> None:
    """For processes that work for a run: signals are often sent to a whole group, and workers have to go on until what
    the main process does about it is done. SIGTERM of the parent still ends them. Usable as `worker_init_fn` of a data
    loader."""
    signal.set_wakeup_fd(-1)  # it came along, and would report to the parent
    for number in _numbers():
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # elsewhere nobody can tell who sent it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey, args=(os.getppid(),), name="signals", daemon=True).start()


def _obey(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(128 + signal.SIGTERM)


def _after_fork() -> None:
    global _current
    if _current is not None and threading.current_thread() is threading.main_thread():
        _current = None
        ignore_in_worker()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _nothing_trained(asked: str) -> Problem:
    what = "stopped as asked, before anything was trained"
    return Problem("E-TRAIN-061", what, got=asked, fix="the same command begins again; prepared data is kept")


def _left_at_once(asked: str | None) -> Problem:
    what = "left at once, as asked twice: what was trained since the last checkpoint is lost"
    return Problem("E-TRAIN-064", what, got=asked, fix="the same command goes on from the last checkpoint")


def _grace_is_over(asked: str | None, grace: float) -> Problem:
    return Problem(
        "E-TRAIN-065",
        f"the run did not come to a place to stop within {grace:g} s",
        got=asked,
        fix="the same command goes on from the last checkpoint; stop_grace gives more time",
    )
