"""R23: kills in the middle of what an optimizer does over several steps."""

from __future__ import annotations

import pytest

from tests.faults.kinds import OPTIMIZERS
from tests.faults.sizes import sized
from tests.faults.trial import Bench

KILLED = -9
PLACES = [(kind, "step_begin", step) for kind in OPTIMIZERS for step in (5, 8, 11, 15, 19)]
PLACES += [(kind, "evaluate", 10) for kind in OPTIMIZERS]


@pytest.mark.row("R23")
@pytest.mark.parametrize(("kind", "event", "step"), sized(PLACES, slow=2))
def test_a_killed_run_goes_on_within_a_rhythm(bench: Bench, kind: str, event: str, step: int) -> None:
    whole = bench.uninterrupted(kind)
    trial = bench.trial(kind)
    trial.run(at=[[event, step, "kill", None]], code=KILLED)
    trial.check_readable()
    trial.finish()
    trial.check_equal(whole)
    bench.remove(trial)
