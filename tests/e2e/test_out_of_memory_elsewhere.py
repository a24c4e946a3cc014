"""Memory that runs out in the optimizer, or while a checkpoint is written: advice, and a whole checkpoint is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.run_logs import curve, same_weights
from tunesmith.core.errors import MachineError
from tunesmith.train.checkpoint import what_is_wrong

pytestmark = pytest.mark.row("R9")

Run = Callable[..., Any]
KEYS = {"save_strategy": "steps", "save_steps": 2, "num_train_epochs": 2, "finetuning_type": "full"}


def out_of_memory(*_: Any, **__: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """`at_step(place, step)`: memory runs out there in that step."""
    from tunesmith.train.trainer import Trainer

    def install(place: str, step: int) -> None:
        def fails(self: Any, *arguments: Any, **keywords: Any) -> Any:
            if self.state.global_step >= step:
                out_of_memory()
            return original(self, *arguments, **keywords)

        if place == "save":
            original: Any = Trainer._save
            monkeypatch.setattr(Trainer, "_save", fails)
            return
        original = Trainer._get_grad_norm

        def before(self: Any, *arguments: Any, **keywords: Any) -> Any:
            norm = original(self, *arguments, **keywords)
            if self.state.global_step + 1 == step:
                self.optimizer.optimizer.step = out_of_memory
            return norm

        monkeypatch.setattr(Trainer, "_get_grad_norm", before)

    return install


@pytest.mark.parametrize(("place", "step"), [("optimizer", 5), ("save", 4)])
def test_it_ends_with_advice_and_a_whole_checkpoint(
    run: Run, at_step: Any, tmp_path: Path, place: str, step: int
) -> None:
    at_step(place, step)
    with pytest.raises(MachineError) as caught:
        run(**KEYS)
    problem = caught.value.problems[0]
    assert problem.code == "E-TRAIN-030"
    assert "saves about" in str(problem.fix)
    assert ("checkpoint" in problem.what) == (place == "save")
    newest = tmp_path / "out" / f"checkpoint-{4 if place == 'optimizer' else 2}"
    assert what_is_wrong(newest) is None


def test_the_same_command_goes_on_where_there_is_enough(run: Run, tmp_path: Path) -> None:
    from tunesmith.train.trainer import Trainer

    whole = run(output_dir=str(tmp_path / "whole"), **KEYS)
    original = Trainer._get_grad_norm

    def before(self: Any, *arguments: Any, **keywords: Any) -> Any:
        norm = original(self, *arguments, **keywords)
        if self.state.global_step == 4:
            self.optimizer.optimizer.step = out_of_memory
        return norm

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_get_grad_norm", before)
        with pytest.raises(MachineError):
            run(**KEYS)
    again = run(**KEYS)
    assert same_weights(whole, again)
    assert curve(again)[-4:] == curve(whole)[-4:]
