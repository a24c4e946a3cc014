"""Signals that ask to stop: when they raise, when they only say so, and that a process that hangs is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tunesmith.core.errors import PreemptedError
from tunesmith.core.signals import StopAsked, StopSignals, current_signals

Start = Callable[..., tuple[subprocess.Popen[str], int]]
HANDLED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)


def send(number: int, *, wait: float = 0.0) -> None:
    os.kill(os.getpid(), number)
    time.sleep(wait)


def test_handlers_are_those_of_before_afterwards() -> None:
    before = [signal.getsignal(number) for number in HANDLED]
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in HANDLED] == before
    assert signal.set_wakeup_fd(-1) == -1
    assert current_signals().asked is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_where_nothing_is_lost_a_signal_ends_the_block(number: signal.Signals) -> None:
    with pytest.raises(PreemptedError) as caught, StopSignals():
        send(number, wait=5)
    assert (caught.value.code, caught.value.problems[0].got) == ("E-TRAIN-061", number.name)


def test_what_a_library_makes_of_it_is_not_a_bug() -> None:
    """An import that swallows the exception leaves a module in parts, and fails somewhere else."""

    def half_imported() -> None:
        with suppress(BaseException):
            send(signal.SIGTERM)
        raise RecursionError("maximum recursion depth exceeded")

    with pytest.raises(PreemptedError) as caught, StopSignals():
        half_imported()
    assert isinstance(caught.value.__cause__, RecursionError)


def test_an_import_is_not_torn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is finished first: libraries swallow what is raised there, and one in C++ ends the process."""
    code = "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(0.2)\nwhole = True\n"
    (tmp_path / "slowly_imported.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    before = signal.getsignal(signal.SIGALRM)

    def waiting() -> None:
        import slowly_imported  # type: ignore[import-not-found]

        assert slowly_imported.whole
        time.sleep(5)

    with pytest.raises(PreemptedError) as caught, StopSignals():
        waiting()
    assert caught.value.code == "E-TRAIN-061"
    assert sys.modules["slowly_imported"].whole
    assert signal.getsignal(signal.SIGALRM) == before


def test_elsewhere_it_is_said_and_raised_where_it_may_be() -> None:
    with StopSignals() as signals:
        signals.at_once = False
        send(signal.SIGTERM)
        assert signals.asked == "SIGTERM"
        with pytest.raises(StopAsked), signals.interruptible():
            pytest.fail("what may be left at once is not begun")
        assert not signals.at_once


def test_a_signal_interrupts_what_may_be_left_at_once() -> None:
    with StopSignals() as signals:
        signals.at_once = False
        begin = time.monotonic()
        with pytest.raises(StopAsked), signals.interruptible():
            send(signal.SIGUSR1, wait=5)
        assert time.monotonic() - begin < 2


def test_one_within_another_is_the_same() -> None:
    with StopSignals() as outer, StopSignals(3.0) as inner:
        assert inner is outer is current_signals()
        assert outer.grace == 3


def test_what_the_parent_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            send(signal.SIGHUP)
            assert signals.asked is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_children_do_not_listen_to_others() -> None:
    """A group of processes gets a signal together: a worker that ended would spoil what the run still has to do."""
    with StopSignals() as signals:
        signals.at_once = False
        child = os.fork()
        if not child:
            for number in HANDLED:
                send(number)
            time.sleep(0.1)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert signals.asked is None


def test_a_parent_can_end_its_children() -> None:
    with StopSignals() as signals:
        signals.at_once = False
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.write(writer, b".")
            time.sleep(10)
            os._exit(7)
        os.read(reader, 1)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 143


START = """
import sys, time, signal, multiprocessing
from tunesmith.core.signals import StopSignals
def child(): time.sleep(60)
def main():
    with StopSignals(float(sys.argv[1])) as signals:
        signals.at_once = False
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        print(process.pid, flush=True)
        {body}
sys.exit(70) if main() else None
"""
# A call that does not return, as of a lock that it holds itself, gives the main thread no chance to run a handler.
IN_A_CALL = (
    "import ctypes; library, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64);"
    "library.pthread_mutex_lock(lock), library.pthread_mutex_lock(lock)"
)
LOOPING = "\n        while True: time.sleep(0.01)"


@pytest.fixture
def start() -> Iterator[Callable[..., tuple[subprocess.Popen[str], int]]]:
    """`start(body, grace)` -> (the process, the number of a child of it), in a session of its own."""
    began: list[subprocess.Popen[str]] = []

    def run(body: str, grace: float, **settings: object) -> tuple[subprocess.Popen[str], int]:
        command = [sys.executable, "-c", START.replace("{body}", body), str(grace)]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        began.append(process)
        assert process.stdout is not None
        return process, int(process.stdout.readline())

    yield run
    for process in began:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with its child, in the session of its own
        process.communicate()


def is_alive(number: int) -> bool:
    from tunesmith.core.process import ProcessId

    try:
        return ProcessId.of(number).is_alive
    except ProcessLookupError:
        return False


@pytest.mark.parametrize("body", [LOOPING, IN_A_CALL], ids=["python", "library"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_second_signal_means_now(start: Start, body, number, code) -> None:
    process, child = start(body, 60)
    process.send_signal(number)
    time.sleep(0.6)
    assert process.poll() is None
    begin = time.monotonic()
    process.send_signal(number)
    returned = process.wait(5)
    assert time.monotonic() - begin < 2
    if body is IN_A_CALL:
        assert returned == code
        assert not is_alive(child)
    else:
        assert returned == {130: -signal.SIGINT, 75: 1}[code]  # a KeyboardInterrupt, or a PreemptedError, of the block


@pytest.mark.parametrize("body", [LOOPING, IN_A_CALL], ids=["python", "library"])
def test_a_run_that_does_not_stop_in_time_is_ended(start: Start, body) -> None:
    process, child = start(body, 0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 75
    assert process.stderr is not None
    told = process.stderr.read()
    assert "error[E-TRAIN-065]" in told
    assert "within 0.5 s" in told
    assert not is_alive(child)


def test_what_is_sent_twice_at_once_is_one_request(start: Start) -> None:
    """A scheduler sends it to all processes, and the launcher passes it on."""
    process, _ = start(LOOPING, 60)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
        process.send_signal(number)
        time.sleep(0.05)
    time.sleep(1.5)
    assert process.poll() is None


def test_hangups_mean_nothing_without_a_terminal(start: Start) -> None:
    process, _ = start(LOOPING, 60)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
