"""Where a run goes on from when its newest checkpoint was torn."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import tunesmith
from tunesmith.checkpoints.plain import what_is_torn
from tunesmith.core.errors import DataError, OutputError
from tunesmith.train.checkpoint import check_writable, find_resume


def cut(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-20])


def text(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


TEARS = {
    "state cut": (cut("trainer_state.json"), "trainer_state.json"),
    "state of something else": (text("trainer_state.json", "{}"), "trainer_state.json"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no weights"),
    "weights cut": (cut("model.safetensors"), "model.safetensors"),
    "weights of no bytes": (text("model.safetensors", ""), "model.safetensors"),
    "optimizer cut": (cut("optimizer.pt"), "optimizer.pt"),
    "chance cut": (cut("rng_state.pth"), "rng_state.pth"),
}


def write(folder: Path, step: int) -> Path:
    made = folder / f"checkpoint-{step}"
    made.mkdir(parents=True)
    (made / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    save_file({"a": torch.ones(30), "b": torch.ones(3)}, made / "model.safetensors")
    for name in ("optimizer.pt", "rng_state.pth"):
        torch.save({"a": torch.ones(30)}, made / name)
    return made


def resume(folder: Path, **keys: object) -> str | None:
    needed = {"model_name_or_path": "m", "dataset": "d", "output_dir": str(folder)}
    return find_resume(tunesmith.load_config({**needed, **keys}))


def test_the_newest_checkpoint_is_taken(tmp_path: Path) -> None:
    write(tmp_path, 5)
    newest = write(tmp_path, 10)
    assert what_is_torn(newest) is None
    assert resume(tmp_path) == resume(tmp_path, resume_from_checkpoint=True) == str(newest)


@pytest.mark.parametrize("case", TEARS)
def test_a_torn_checkpoint_is_passed_over(case: str, tmp_path: Path) -> None:
    tear, said = TEARS[case]
    older = write(tmp_path, 5)
    torn = write(tmp_path, 10)
    tear(torn)
    assert said in str(what_is_torn(torn))
    assert resume(tmp_path) == str(older)
    with pytest.raises(DataError) as caught:
        resume(tmp_path, resume_from_checkpoint=str(torn))
    assert caught.value.code == "E-TRAIN-014"
    assert str(older) in str(caught.value)


def test_where_all_are_torn_nothing_starts_afresh_unasked(tmp_path: Path) -> None:
    cut("model.safetensors")(write(tmp_path, 5))
    with pytest.raises(DataError) as caught:
        resume(tmp_path)
    assert caught.value.code == "E-TRAIN-014"
    assert resume(tmp_path, overwrite_output_dir=True) is None


def test_an_output_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OutputError, match="is a file"):
            check_writable(folder)
