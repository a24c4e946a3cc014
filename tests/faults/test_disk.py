"""R6, R19: a disk that is full or fails, and the power that goes."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import oracle, shim
from tests.faults.forks import Child
from tests.faults.kinds import SAVING, STEPS
from tests.faults.power_cut import MODELS, Disk
from tests.faults.sizes import sized
from tests.faults.trial import Bench, Trial

KILLED, STORAGE = -9, 74
POINTS = 12
"""Calls of a run, spread over it evenly, at which the disk fails."""
CUTS = 21

ERRORS = [(error, point) for point in range(POINTS) for error in shim.FULL_DISK]
FULL = [(list(SAVING)[number % len(SAVING)], *case) for number, case in enumerate(ERRORS)]


def calls_of_a_run(bench: Bench, kind: str) -> list[shim.Point]:
    """Everything that a run does to its output folder, which was there and empty."""

    def trace(trial: Trial) -> None:
        trial.output.mkdir(parents=True)
        child = trial.run(arm=shim.Arm(str(trial.output), journal=str(trial.folder / "journal")))
        assert saved(child) == [*range(3, STEPS, 3), STEPS]

    return shim.read_journal(bench.once("calls", kind, trace).folder / "journal")


def saved(child: Child) -> list[int]:
    """Steps that the run reported as saved."""
    return [int(step) for step in re.findall(r"^saved \S*checkpoint-(\d+)", child.text, re.MULTILINE)]


@pytest.mark.row("R6")
@pytest.mark.parametrize(("kind", "error", "number"), sized(FULL, quick=1, slow=4))
def test_a_disk_that_fails_ends_the_run_and_leaves_no_part(bench: Bench, kind: str, error: str, number: int) -> None:
    """The message names the place; once there is space again, the same command goes on to the same bits."""
    whole = bench.uninterrupted(kind)
    calls = [point for point in calls_of_a_run(bench, kind) if point.call in {"open", "truncate", "write", "mkdir"}]
    trial = bench.trial(kind)
    trial.output.mkdir(parents=True)
    at = calls[int((number + random.Random(f"{error} {number}").random()) / POINTS * len(calls))]
    child = trial.run(arm=shim.Arm(str(trial.output), at.number, "fail", error), code=STORAGE)
    trial.check_readable()
    assert str(trial.output) in child.text, "the message names the path"
    assert re.search(r"error\[E-\w+-\d+\]", child.text), child.text
    if error == "ENOSPC":
        assert re.search(r"\d+(\.\d+)? (bytes|[kKMGT]i?B)", child.text), "and how much there is"
    trial.finish()
    trial.check_equal(whole)
    bench.remove(trial)


@pytest.mark.row("R19")
@pytest.mark.parametrize(
    ("kind", "cut"), sized([(list(SAVING)[cut % len(SAVING)], cut) for cut in range(CUTS)], quick=1, slow=1)
)
def test_what_was_reported_as_saved_outlives_the_power(
    bench: Bench, cases: Callable[[int], None], kind: str, cut: int
) -> None:
    whole = bench.uninterrupted(kind)
    cases(len(MODELS))
    calls = calls_of_a_run(bench, kind)
    at = calls[int((cut + random.Random(f"cut {cut}").random()) / CUTS * len(calls))].number
    trial = bench.trial(kind, "cut")
    trial.output.mkdir(parents=True)
    journal, kept = trial.folder / "journal", trial.folder / "kept"
    kept.mkdir()
    child = trial.run(arm=shim.Arm(str(trial.output), at, "kill", journal=str(journal), kept=str(kept)), code=KILLED)
    for model in MODELS:
        after = bench.trial(kind)
        after.folder.mkdir()
        Disk(trial.output, shim.read_journal(journal)).after_the_cut(kept, after.output, model, f"{kind} {cut}")
        newest = max([0, *map(oracle.step_of, whole_checkpoints(after.output))])
        assert newest >= max(saved(child), default=0), f"{model}: checkpoint {newest} after {saved(child)}"
        after.finish()
        after.check_equal(whole)
        bench.remove(after)
    bench.remove(trial)


def whole_checkpoints(output_dir: Path) -> list[Path]:
    from tunesmith.checkpoints.store import verify

    return [folder for folder in oracle.checkpoints(output_dir) if verify(folder) is None]
