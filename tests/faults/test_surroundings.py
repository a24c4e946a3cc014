"""R15, R18: clocks that jump, and machines that are busy elsewhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.child import At
from tests.faults.kinds import KINDS
from tests.faults.sizes import sized
from tests.faults.trial import Bench

KILLED = -9
EUROPE = "CET-1CEST,M3.5.0,M10.5.0/3"

CLOCKS: dict[str, list[At]] = {
    "an hour back": [["step_begin", 8, "clock", -3600]],
    "into summer time": [["step_begin", 8, "zone", EUROPE], ["step_begin", 9, "clock", 120 * 86400]],
    "another zone": [["step_begin", 8, "zone", "XXX+11"]],
}


@pytest.mark.row("R15")
@pytest.mark.parametrize(
    ("kind", "clock"), sized([(kind, clock) for kind, clock in zip(KINDS, CLOCKS, strict=False)], slow=1)
)
def test_a_clock_that_jumps_changes_nothing(bench: Bench, kind: str, clock: str) -> None:
    """Not what is chosen to go on from, nor the time that is left."""
    whole = bench.uninterrupted(kind)
    trial = bench.trial(kind)
    trial.run(at=[*CLOCKS[clock], ["step_begin", 14, "kill", None]], code=KILLED)
    trial.finish(at=[["train_begin", None, "clock", -86400]])
    trial.check_equal(whole)
    lines = [json.loads(line) for line in (trial.output / "trainer_log.jsonl").read_text().splitlines()]
    for line in lines:
        assert re.fullmatch(r"0:00:\d\d", line["remaining_time"]), line  # a run of seconds
        assert re.fullmatch(r"0:00:\d\d", line["elapsed_time"]), line
    bench.remove(trial)


@pytest.mark.row("R18")
@pytest.mark.parametrize("kind", sized(list(KINDS), slow=1))
def test_the_same_run_on_a_busy_machine_elsewhere_gives_the_same_bits(
    bench: Bench, tmp_path: Path, cases: Any, kind: str
) -> None:
    """Again; beside two processes that compute; in another folder of another user."""
    whole = bench.uninterrupted(kind)
    cases(4)
    elsewhere: list[dict[str, Any]] = [{}, {}, {"cwd": tmp_path}, {"environment": {"HOME": str(tmp_path)}}]
    for number, how in enumerate(elsewhere):
        trial = bench.trial(kind)
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (number == 1))]
        try:
            trial.finish(**how)
        finally:
            for process in busy:
                process.kill()
                process.wait()
        trial.check_equal(whole)
        bench.remove(trial)
