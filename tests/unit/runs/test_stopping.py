"""Stop and save from another process. The job is a small program that keeps the rules of a run: signals, requests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tunesmith.__main__ import main
from tunesmith.core.errors import UnavailableError, UsageError
from tunesmith.core.process import ProcessId
from tunesmith.runs import manifest
from tunesmith.runs.find import find
from tunesmith.runs.stopping import KILLED, save_now, stop, stop_now

MakeRun = Callable[..., Path]

JOB = """
import os, signal, sys, time
from pathlib import Path
from tunesmith.core.process import ProcessId
from tunesmith.runs.manifest import changing, event

folder, manner = Path(sys.argv[1]), sys.argv[2]
interrupts = []

def leave(number, frame):
    interrupts.append(number)
    if manner == "deaf":
        return
    if number == signal.SIGINT and len(interrupts) < 2:
        return
    if manner == "silent":
        os._exit(1)
    if number == signal.SIGTERM:
        (folder / "checkpoint-7").mkdir()
    with changing(folder) as found:
        found.update(status="stopped", exit_code=75, steps={"done": 7, "total": 9})
    os._exit(75)

for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, leave)
with changing(folder) as found:
    found.update(status="running", process=ProcessId.of().to_dict())
while True:
    time.sleep(0.02)
    for request in (folder / ".control").glob("*"):
        (folder / "checkpoint-5").mkdir()
        request.unlink()
        if request.name == "stop-and-save":
            leave(0, None)
"""


@pytest.fixture
def job(make_run: MakeRun) -> Iterator[Callable[..., Path]]:
    """`job(manner)` -> the folder of a job that runs; it is ended with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(manner: str = "fair", **settings: Any) -> Path:
        folder = make_run("ab12", status="preparing", exit_code=None)
        started.append(subprocess.Popen([sys.executable, "-c", JOB, str(folder), manner], **settings))
        while manifest.read(folder)["status"] != "running":
            time.sleep(0.02)
            assert started[-1].poll() is None
        return folder

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_stop_waits_until_it_has_saved_and_left(job: Callable[..., Path]) -> None:
    folder = job()
    (row,) = find([str(folder)])
    assert row.status == "running"
    after = stop(row, timeout=20)
    assert (after.status, after.exit_code, after.done) == ("stopped", 75, 7)
    assert not after.process_id.is_alive
    with pytest.raises(UsageError) as caught:
        stop(after, timeout=1)
    assert caught.value.code == "E-RUN-004"


def test_stop_on_another_machine_is_a_file(job: Callable[..., Path]) -> None:
    """The record says another host; the job is here, so it finds the request as it would there."""
    folder = job()
    with manifest.changing(folder) as found:
        found["process"] = {**found["process"], "host": "elsewhere"}
    (row,) = find([str(folder)])
    assert stop(row, timeout=20).status == "stopped"
    assert list((folder / ".control").iterdir()) == []
    with manifest.changing(folder) as found:
        found["status"] = "running"
    with pytest.raises(UsageError) as caught:
        stop_now(row)
    assert caught.value.code == "E-RUN-005"


def test_save_waits_for_the_checkpoint_and_the_run_goes_on(job: Callable[..., Path]) -> None:
    folder = job()
    after = save_now(find([str(folder)])[0], timeout=20)
    assert after.status == "running"
    assert (folder / "checkpoint-5").is_dir()


def test_a_run_that_does_not_answer_is_an_error_and_goes_on(job: Callable[..., Path]) -> None:
    (row,) = find([str(job("deaf"))])
    with pytest.raises(UnavailableError) as caught:
        stop(row, timeout=0.5)
    assert caught.value.code == "E-RUN-006"
    assert row.status == "running"


def test_now_leaves_without_a_checkpoint(job: Callable[..., Path]) -> None:
    folder = job()
    after = stop_now(find([str(folder)])[0])
    assert (after.status, after.exit_code) == ("stopped", 75)
    assert not list(folder.glob("checkpoint-*"))


def test_now_is_recorded_where_the_run_says_nothing(job: Callable[..., Path]) -> None:
    folder = job("silent")
    after = stop_now(find([str(folder)])[0])
    assert (after.status, after.exit_code) == ("stopped", None)
    assert manifest.read(folder)["events"][-1]["kind"] == "left_at_once"


@pytest.mark.parametrize("own_group", [True, False])
def test_now_kills_what_does_not_leave(
    job: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, own_group: bool
) -> None:
    """Without a group of its own the job is killed alone: this test, in the same group, lives on to see it."""
    monkeypatch.setattr("tunesmith.runs.stopping._GRACE", 0.5)
    folder = job("deaf", start_new_session=own_group)
    after = stop_now(find([str(folder)])[0])
    assert (after.status, after.exit_code) == ("stopped", KILLED)
    assert manifest.read(folder)["events"][-1]["kind"] == "killed"


def test_the_verb_says_what_happened(job: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = job()
    assert main(["runs", "stop", "ab", "--save"]) == 0
    assert capsys.readouterr().out == "running at step 2 of 2: checkpoint-5 is kept\n"
    assert main(["runs", "stop", "ab", "--now", "--save"]) == 2
    assert "E-RUN-009" in capsys.readouterr().err
    assert main(["runs", "stop", str(folder)]) == 0
    told = "stopped at step 7 of 9: checkpoint-7 is kept; the same command goes on from it\n"
    assert capsys.readouterr().out == told
    assert main(["runs", "stop", str(folder)]) == 2


def test_a_process_with_the_number_of_a_dead_run_gets_no_signal(make_run: MakeRun) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        other = {**ProcessId.of(process.pid).to_dict(), "started": "another time"}
        (row,) = find([str(make_run("ab12", status="running", process=other))])
        assert row.status == "died"
        with pytest.raises(UsageError):
            stop(row, timeout=1)
        assert process.poll() is None
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


def test_as_json(job: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    job()
    assert main(["runs", "stop", "ab12", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "stopped"
