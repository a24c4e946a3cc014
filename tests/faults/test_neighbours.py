"""R14, R17: a second process on the same folder, and a rank that dies."""

from __future__ import annotations

import re
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.faults import shim
from tests.faults.forks import Child
from tests.faults.kinds import KINDS
from tests.faults.sizes import sized
from tests.faults.trial import Bench, Trial

KILLED, REFUSED = -9, 2
MOMENTS = ["step_begin", "evaluate", "save"]


def held(trial: Trial, event: str, step: int | None) -> tuple[Child, Path]:
    """The run, come to a place where it waits until the door is opened."""
    door = trial.folder / "door"
    child = trial.start(at=[[event, step, "wait", str(door)]])
    until = time.monotonic() + 60
    while not door.with_suffix(".here").exists():
        assert time.monotonic() < until, child.text
        assert child.over(0.01) is None, child.text
    return child, door.with_suffix(".open")


@pytest.mark.row("R14")
@pytest.mark.parametrize(
    ("kind", "event", "step"),
    sized([("sft-lora", "step_begin", 7), ("pt-full", "evaluate", 5), ("sft-stream", "save", 6)], quick=1, slow=1),
)
def test_a_second_process_on_the_folder_is_refused(bench: Bench, kind: str, event: str, step: int) -> None:
    whole = bench.uninterrupted(kind)
    trial = bench.trial(kind)
    first, door = held(trial, event, step)
    second = trial.run(code=REFUSED)
    assert str(first.pid) in second.text, "names the process"
    assert socket.gethostname() in second.text, "and its machine"
    door.touch()
    assert first.wait() == 0, first.text
    trial.check_readable()
    trial.check_equal(whole)
    bench.remove(trial)


@pytest.mark.row("R14")
@pytest.mark.parametrize("kind", sized(["sft-lora", "pt-full"], slow=1))
def test_the_lock_of_a_killed_process_is_taken_over(bench: Bench, kind: str) -> None:
    """Also where it was stopped before, and is not reaped yet."""
    whole = bench.uninterrupted(kind)
    trial = bench.trial(kind)
    first, _ = held(trial, "step_begin", 8)
    first.kill(signal.SIGSTOP)
    trial.run(code=REFUSED)
    first.kill()
    trial.finish()
    assert first.wait() == KILLED
    trial.check_equal(whole)
    bench.remove(trial)


@pytest.mark.row("R14")
@pytest.mark.parametrize("kind", sized(["sft-lora"], slow=1))
def test_of_two_that_start_at_once_one_trains(bench: Bench, kind: str) -> None:
    whole = bench.uninterrupted(kind)
    trial = bench.trial(kind)
    both = [trial.start(), trial.start()]
    assert sorted(child.wait() for child in both) == [0, REFUSED], [child.text for child in both]
    trial.check_equal(whole)
    bench.remove(trial)


# ---- ranks ----

TWO = {"gradient_accumulation_steps": 1}
DEATHS = [(kind, "step_end", step) for step, kind in enumerate(KINDS, 7)]
DEATHS += [(kind, "in a save", call) for call, kind in enumerate(("sft-lora", "sft-full", "sft-stream", "pt-full"))]


@pytest.mark.row("R17")
@pytest.mark.parametrize(("kind", "event", "number"), sized(DEATHS, slow=1))
def test_a_dead_rank_ends_the_job_and_the_restart_gives_the_same_bits(
    bench: Bench, kind: str, event: str, number: int
) -> None:
    """Rank 1 of two is killed, in a step or at a call of a save."""
    whole = bench.once("ranks", kind, lambda trial: trial.run(ranks=2), **TWO)
    trial = bench.trial(kind, **TWO)
    begun = time.monotonic()
    if event == "in a save":
        child = trial.run(ranks=2, arm=shim.Arm(str(trial.output), 2 + number, "kill"), code=1)
    else:
        child = trial.run(ranks=2, at=[[event, number, "kill", None]], code=1)
    assert time.monotonic() - begun < 30 + bench.seconds_of(kind), "the others did not hang"
    assert re.search(r"rank\W+1\b", child.text), child.text
    trial.check_readable()
    trial.finish(ranks=2)
    trial.check_equal(whole)
    bench.remove(trial)
