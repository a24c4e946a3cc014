"""R10: a medium that can no longer be read, met in the middle of a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.faults import oracle
from tests.faults.sizes import sized
from tests.faults.trial import Bench, Trial
from tests.seeing import colour_rows, coloured, seeing_model

KILLED, CHANGED, DATA = -9, 2, 65
ROWS, HURT = 40, 4
"""Each step draws 4 of 36 rows: the file is hurt when the fourth begins, so that all rows are drawn after it."""
FAULTS = {"remove": "E-MEDIA-010", "cut": "E-MEDIA-022", "exchange": "E-MEDIA-022"}
CASES = [("sft-seeing", what, row) for what in FAULTS for row in (3, 18)]


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory, stories: Path) -> Path:
    return seeing_model(tmp_path_factory.mktemp("model") / "seeing", stories)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Rows with pictures, and a picture that is no row's."""
    colour_rows(tmp_path / "data", ROWS)
    coloured("red", 99, size=16).save(tmp_path / "data" / "other.png")
    return tmp_path / "data"


def begin(bench: Bench, kind: str, model: Path, pictures: Path, **keys: Any) -> Trial:
    rows = str(pictures / "rows-0.json")
    return bench.trial(kind, model_name_or_path=str(model), dataset=rows, **keys)


def hurt(what: str, picture: Path) -> list[Any]:
    argument = [str(picture.parent / "other.png"), str(picture)] if what == "exchange" else str(picture)
    return ["step_begin", HURT, what, argument]


@pytest.mark.row("R10")
@pytest.mark.parametrize(("kind", "what", "row"), sized(CASES, slow=1))
@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_medium_stops_the_run_and_once_mended_it_goes_on(
    bench: Bench, seeing: Path, pictures: Path, kind: str, what: str, row: int, workers: int
) -> None:
    """The message has file and row; no step is lost."""
    picture, kept = pictures / f"{row}.png", pictures / "kept.png"
    shutil.copy2(picture, kept)
    keys = {"dataloader_num_workers": workers, "dataloader_prefetch_factor": 1} if workers else {}
    whole, trial = (begin(bench, kind, seeing, pictures, **keys) for _ in range(2))
    whole.finish()
    child = trial.run(at=[hurt(what, picture)], code=DATA)
    assert "Traceback" not in child.text, child.text
    assert f"error[{FAULTS[what]}]" in child.text, child.text
    assert f"rows-0.json, row {row}: {picture}" in child.text, child.text
    trial.check_readable()
    assert oracle.checkpoints(trial.output), "what was trained so far is saved"
    again = trial.run(code=CHANGED if what == "exchange" else DATA)  # found before the weights are read
    wanted = ["the rows to train on"] if what == "exchange" else [f"rows-0.json, row {row}", picture.name]
    assert all(one in again.text for one in wanted), again.text
    shutil.copy2(kept, picture)
    trial.finish()
    trial.check_equal(whole)


@pytest.mark.row("R10")
@pytest.mark.parametrize(("kind", "what", "row"), sized(CASES, slow=1))
def test_a_bad_medium_that_is_left_out_is_so_after_a_resume(
    bench: Bench, seeing: Path, pictures: Path, kind: str, what: str, row: int
) -> None:
    picture, kept = pictures / f"{row}.png", pictures / "kept.png"
    shutil.copy2(picture, kept)
    keys = {"on_bad_media": "skip", "max_bad_rows": 10, "max_steps": 20}
    whole, trial = (begin(bench, kind, seeing, pictures, **keys) for _ in range(2))
    whole.finish(at=[hurt(what, picture)])
    shutil.copy2(kept, picture)
    trial.run(at=[hurt(what, picture), ["step_begin", 11, "kill", None]], code=KILLED)
    trial.finish()
    trial.check_equal(whole)
    told = [json.loads((one.output / "train_results.json").read_text())["train_bad_media"] for one in (whole, trial)]
    assert told[0] == told[1] > 0
