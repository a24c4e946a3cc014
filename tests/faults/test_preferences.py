"""R24: kills and signals in a run that learns from preferences."""

from __future__ import annotations

import signal

import pytest

from tests.faults import oracle
from tests.faults.kinds import PREFERENCES, STEPS
from tests.faults.sizes import sized
from tests.faults.trial import Bench

KILLED, STOPPED = -9, 75
PLACES = [(kind, event, step) for kind in PREFERENCES for event, step in (("step_begin", 5), ("substep_end", 11))]
PLACES += [(kind, "evaluate", 10) for kind in PREFERENCES]
PLACES += [(kind, "train_end", STEPS) for kind in PREFERENCES]


@pytest.mark.row("R24")
@pytest.mark.parametrize(("kind", "event", "step"), sized(PLACES, slow=2))
def test_a_killed_run_goes_on_as_if_nothing_had_happened(bench: Bench, kind: str, event: str, step: int) -> None:
    whole = bench.uninterrupted(kind)
    trial = bench.trial(kind)
    trial.run(at=[[event, step, "kill", None]], code=KILLED)
    trial.check_readable()
    trial.finish()
    trial.check_equal(whole)
    bench.remove(trial)


@pytest.mark.row("R24")
@pytest.mark.parametrize(("kind", "number"), sized([(kind, int(signal.SIGTERM)) for kind in PREFERENCES], slow=1))
def test_a_run_that_is_asked_to_stop_loses_no_step(bench: Bench, kind: str, number: int) -> None:
    whole = bench.uninterrupted(kind)
    trial = bench.trial(kind)
    trial.run(at=[["step_begin", 8, "signal", number]], code=STOPPED)
    trial.check_readable()
    assert max(map(oracle.step_of, oracle.checkpoints(trial.output))) >= 8
    trial.finish()
    trial.check_equal(whole)
    bench.remove(trial)
