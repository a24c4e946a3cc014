"""R4, R5: a run that is asked to stop in any of its phases saves, leaves, and goes on to the same bits."""

from __future__ import annotations

import random
import signal
import time
from typing import Any

import pytest

from tests.faults import oracle, shim
from tests.faults.kinds import KINDS
from tests.faults.sizes import sized
from tests.faults.test_neighbours import held
from tests.faults.trial import Bench

STOPPED, INTERRUPTED = 75, 130
GRACE = 25.0

PHASES: dict[str, tuple[str, int, int]] = {
    "before the first step": ("train_begin", 0, 0),
    "before a step": ("step_begin", 7, 7),
    "between micro-batches": ("substep_end", 7, 7),
    "after a step": ("step_end", 8, 8),
    "an evaluation": ("prediction_step", 5, 5),
    "after an evaluation": ("evaluate", 10, 10),
    "after a save": ("save", 9, 9),
    "the last step but one": ("step_begin", 18, 18),
}
"""(event, step) at which the signal comes, and the step that must not be lost."""

NUMBERS = [signal.SIGTERM, signal.SIGUSR1]


@pytest.mark.row("R4")
@pytest.mark.parametrize(
    ("kind", "phase"), sized([(kind, phase) for kind in KINDS for phase in PHASES], quick=1, slow=3)
)
def test_a_run_that_is_asked_to_stop_loses_no_step(bench: Bench, kind: str, phase: str) -> None:
    whole = bench.uninterrupted(kind)
    event, step, kept = PHASES[phase]
    number = NUMBERS[len(phase) % len(NUMBERS)]
    trial = bench.trial(kind)
    begun = time.monotonic()
    trial.run(at=[[event, step, "signal", int(number)]], code=STOPPED)
    assert time.monotonic() - begun < GRACE + bench.seconds_of(kind)
    trial.check_readable()
    assert max([0, *map(oracle.step_of, oracle.checkpoints(trial.output))]) >= kept
    trial.finish()
    trial.check_equal(whole)
    bench.remove(trial)


@pytest.mark.row("R4")
@pytest.mark.parametrize(("kind", "part"), sized([(kind, part) for kind in KINDS for part in range(4)], slow=2))
def test_a_run_that_is_asked_to_stop_at_a_random_time_goes_on(bench: Bench, kind: str, part: int) -> None:
    """Also while data is prepared, weights are read, and files are written in the end."""
    whole = bench.uninterrupted(kind)
    trial = bench.trial(kind)
    child = trial.start()
    child.over((part + random.Random(f"{kind} {part}").random()) / 4 * bench.seconds_of(kind))
    child.kill(signal.SIGTERM)
    assert child.wait() in (STOPPED, 0), child.text
    trial.check_readable()
    trial.finish()
    trial.check_equal(whole)
    bench.remove(trial)


@pytest.mark.row("R4")
@pytest.mark.parametrize(("kind", "part"), sized([(kind, part) for kind in KINDS for part in range(3)], slow=1))
def test_a_signal_within_a_save_does_not_tear_it(bench: Bench, kind: str, part: int) -> None:
    whole = bench.uninterrupted(kind)
    trial = bench.trial(kind)
    at = 100 + random.Random(f"{kind} {part}").randrange(200)
    trial.run(arm=shim.Arm(str(trial.output), at, "term"), code=STOPPED)
    trial.check_readable()
    trial.finish()
    trial.check_equal(whole)
    bench.remove(trial)


@pytest.mark.row("R5")
@pytest.mark.parametrize("kind", sized(list(KINDS), slow=1))
def test_one_interrupt_saves_and_a_second_one_leaves(bench: Bench, kind: str) -> None:
    whole = bench.uninterrupted(kind)
    once = bench.trial(kind)
    once.run(at=[["step_begin", 10, "signal", int(signal.SIGINT)]], code=STOPPED)
    assert oracle.step_of(oracle.checkpoints(once.output)[-1]) >= 10
    twice = bench.trial(kind)
    child, _ = held(twice, "step_begin", 10)
    for _ in range(2):
        child.kill(signal.SIGINT)
        time.sleep(0.8)  # sooner, and it would be one request that arrives twice
    assert child.over(2.0) == INTERRUPTED, child.text
    for trial in (once, twice):
        trial.check_readable()
        trial.finish()
        trial.check_equal(whole)
        bench.remove(trial)


@pytest.mark.row("R5")
@pytest.mark.parametrize("kind", sized(list(KINDS), slow=1))
def test_a_closed_terminal_means_nothing_to_a_run_without_one(bench: Bench, kind: str) -> None:
    whole = bench.uninterrupted(kind)
    trial = bench.trial(kind)
    hang_up: list[Any] = ["step_begin", 6, "signal", int(signal.SIGHUP)]
    trial.finish(at=[hang_up])
    trial.check_equal(whole)
    bench.remove(trial)
