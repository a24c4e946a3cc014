"""R10: a row that cannot be used, met in the middle of a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.faults import oracle
from tests.faults.kinds import ASSETS
from tests.faults.sizes import sized
from tests.faults.trial import Bench

KILLED, DATA = -9, 65
BAD: dict[str, Any] = {"no answer": None, "a number": 7, "a list": ["a", "b"]}
CASES = [("sft-stream", what, row) for what in BAD for row in (17, 29)]
"""Rows of 40, read in windows of 11: in the second window, which training has begun before, and in the third."""


def copied(folder: Path) -> Path:
    """The file of rows in a copy of the datasets."""
    shutil.copytree(ASSETS / "data", folder)
    return folder / "known_alpaca.json"


def spoil(file: Path, bad: dict[int, Any]) -> None:
    """Give some rows other answers."""
    rows = json.loads(file.read_text())
    written = [{**row, "output": bad[number]} if number in bad else row for number, row in enumerate(rows)]
    file.write_text(json.dumps(written, indent=1))


@pytest.mark.row("R10")
@pytest.mark.parametrize(("kind", "what", "row"), sized(CASES, slow=1))
def test_a_bad_row_stops_the_run_and_once_mended_it_goes_on(
    bench: Bench, tmp_path: Path, kind: str, what: str, row: int
) -> None:
    """The message has file and row; no step is lost."""
    file = copied(tmp_path / "data")
    rows = file.read_text()
    whole, trial = (bench.trial(kind, dataset_dir=str(file.parent)) for _ in range(2))
    whole.finish()
    spoil(file, {row: BAD[what]})
    child = trial.run(code=DATA)
    assert f"known_alpaca.json:{2 + 5 * row}\n" in child.text, child.text  # a row has five lines
    trial.check_readable()
    assert oracle.checkpoints(trial.output), "what was trained so far is saved"
    file.write_text(rows)
    trial.finish()
    trial.check_equal(whole)


@pytest.mark.row("R10")
@pytest.mark.parametrize(("kind", "what", "row"), sized(CASES, slow=1))
def test_a_bad_row_that_is_left_out_is_so_after_a_resume(
    bench: Bench, tmp_path: Path, kind: str, what: str, row: int
) -> None:
    file = copied(tmp_path / "data")
    spoil(file, {row: BAD[what], 33: None})
    keys = {"dataset_dir": str(file.parent), "on_bad_row": "skip", "max_bad_rows": 10}
    whole, trial = bench.trial(kind, **keys), bench.trial(kind, **keys)
    whole.finish()
    trial.run(at=[["step_begin", 10, "kill", None]], code=KILLED)
    trial.finish()
    trial.check_equal(whole)
