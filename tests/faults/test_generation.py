"""R4: a run that is killed, or asked to stop, while it writes predictions goes on behind the rows it has answered."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.forks import Child
from tests.faults.sizes import sized
from tests.faults.trial import Bench, Trial
from tunesmith.evaluate.answers import FOLDER
from tunesmith.evaluate.predict import PREDICTIONS

STOPPED, KILLED = 75, -9
ROWS = 24
KEYS: dict[str, Any] = {
    "do_predict": True,
    "val_size": ROWS,
    "max_steps": 4,
    "eval_strategy": "no",
    "max_new_tokens": 40,
    "temperature": 1.5,
    "top_p": 1.0,
    "max_batch_requests": 2,
}
"""Drawn at random, so that an answer from another seed would be seen; two at a time, so that it takes a while."""

CASES = [
    (kind, number, answered)
    for kind in ("sft-lora", "sft-full")
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1)
    for answered in (1, 7, 15)
]


def predictions(trial: Trial) -> list[Any]:
    return [json.loads(line) for line in (trial.output / PREDICTIONS).read_text().splitlines()]


def answered_rows(output: Path) -> list[int]:
    lines = [line for file in output.joinpath(FOLDER).glob("*.jsonl") for line in file.read_text().splitlines(True)]
    return [json.loads(line)["row"] for line in lines if line.endswith("\n")]


def wait_for_answers(child: Child, output: Path, number: int) -> None:
    end = time.monotonic() + 120
    while len(answered_rows(output)) < number:
        assert child.over(0) is None, child.text
        assert time.monotonic() < end, "nothing is answered"
        time.sleep(0.005)


@pytest.mark.row("R4")
@pytest.mark.parametrize(("kind", "number", "answered"), sized(CASES, quick=1, slow=2))
def test_predictions_go_on_behind_what_was_answered(
    bench: Bench, kind: str, number: signal.Signals, answered: int
) -> None:
    whole = bench.once("predicted", kind, lambda trial: trial.finish(), **KEYS)
    assert len(predictions(whole)) == ROWS
    trial = bench.trial(kind, **KEYS)
    child = trial.start()
    wait_for_answers(child, trial.output, answered)
    child.kill(number)
    code = child.wait()
    assert code == (KILLED if number == signal.SIGKILL else STOPPED), child.text
    before = answered_rows(trial.output)
    assert answered <= len(before) < ROWS
    assert len(set(before)) == len(before)
    again = trial.finish()
    assert f"{len(before)} of {ROWS} rows were answered before" in again.text
    assert predictions(trial) == predictions(whole)
    assert not (trial.output / FOLDER).exists()
    trial.check_equal(whole)
    bench.remove(trial)
