"""Jobs that are over in a moment and write down when they began and ended, and a runner that can be killed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from tunesmith.runs.queue.job import Job
from tunesmith.runs.queue.runner import Runner
from tunesmith.runs.queue.store import Queue

# Writes "start NAME", then "end NAME" after some seconds, or "saved NAME" and exit 75 after SIGTERM. Two that run at
# the same time write "overlap".
_SCRIPT = """
import fcntl, os, signal, sys, time
ledger, name, seconds, code = sys.argv[1:5]
def write(word):
    file = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{word} {name}\\n".encode())
    os.close(file)
def leave(*_):
    write("saved")
    os._exit(75)
signal.signal(signal.SIGTERM, leave)
busy = open(ledger + ".busy", "a")
try:
    fcntl.flock(busy, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    write("overlap")
write("start")
print("this is", name, os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
time.sleep(float(seconds))
write("end")
sys.exit(int(code))
"""

_RUNNER = """
import sys
from pathlib import Path
from tunesmith.runs.queue.runner import Runner
from tunesmith.runs.queue.store import Queue
Runner(Queue(Path(sys.argv[1])), poll=0.02, pause=0.01).run(until_empty=True)
"""


def ledger(queue: Queue) -> list[str]:
    """What the jobs of a queue have written down."""
    path = queue.folder.parent / "ledger"
    return path.read_text().splitlines() if path.exists() else []


def add(queue: Queue, name: str, seconds: float = 0.0, code: int = 0, **others: Any) -> Job:
    """Queue a job that takes so long and ends with this exit code."""
    place = queue.folder.parent
    words = [sys.executable, "-S", "-c", _SCRIPT, str(place / "ledger"), name, str(seconds), str(code)]
    return queue.add(
        others.pop("command", lambda config: words),
        config="",
        directory=others.pop("directory", place),
        environment={},
        name=name,
        **others,
    )


def work(runner: Runner, until: Callable[[], bool], seconds: float = 30.0) -> None:
    """Let a runner of this process work until something is so."""
    last = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < last, [(job.number, job.state, ledger(runner.queue)) for job in runner.queue.jobs()]
        runner.turn()
        time.sleep(0.01)


def work_off(runner: Runner, seconds: float = 30.0) -> None:
    """Let it work until nothing is left to do, and its keepers have ended."""
    last = time.monotonic() + seconds
    while runner.turn(until_empty=True):
        assert time.monotonic() < last
        time.sleep(0.01)
    while any(keeper.poll() is None for keeper in runner._keepers.values()):
        time.sleep(0.01)


def runner_process(queue: Queue) -> subprocess.Popen[bytes]:
    """A runner in a process of its own, which leaves when the queue is empty."""
    return subprocess.Popen([sys.executable, "-c", _RUNNER, str(queue.folder)])
