"""How a process of several ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROCESS = """
import atexit, threading, time
from tunesmith.core.ending import ended_by
{before}
class Last:
    def __del__(self):
        print("taken apart")
last = Last()
def run():
    atexit.register(print, "registered")
    threading.Thread(target=lambda: (time.sleep(0.1), print("thread"))).start()
    print("begins")
    return 75
raise SystemExit(ended_by(run))
"""
_CONNECTED = """
from torch import distributed
distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
"""


@pytest.mark.slow
def test_a_connected_process_does_all_that_is_registered_and_is_not_taken_apart() -> None:
    command = [sys.executable, "-c", _PROCESS.format(before=_CONNECTED)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (75, "")
    assert done.stdout.split() == ["begins", "thread", "registered"]


def test_a_process_alone_ends_as_python_does() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROCESS.format(before="")], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (75, "")
    assert done.stdout.splitlines() == ["begins", "thread", "registered", "taken apart"]
