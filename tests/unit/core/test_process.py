"""A process is known by its number and its start, so that a later one of the same number is another."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from tunesmith.core.process import ProcessId


def test_this_process_runs() -> None:
    found = ProcessId.of()
    assert found.pid == os.getpid()
    assert found.is_alive
    assert ProcessId.from_dict(found.to_dict()) == found


def test_another_process_of_the_same_number_is_another() -> None:
    found = ProcessId.of()
    assert not replace(found, started="an earlier one").is_alive


def test_one_on_another_host_cannot_be_asked_for() -> None:
    far = replace(ProcessId.of(), host="elsewhere")
    assert not far.is_here
    assert not far.is_alive


def test_one_that_has_ended_does_not_run_while_its_parent_waits() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    found = ProcessId.of(child.pid)
    assert found.is_alive
    assert child.stdin is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has taken note of it
    assert not found.is_alive
    child.wait()
    with pytest.raises(ProcessLookupError):
        ProcessId.of(child.pid)
