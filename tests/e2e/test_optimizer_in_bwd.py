"""Runs whose optimizer steps in the backward pass give the weights of runs whose optimizer steps after it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.run_logs import column, curve, same_weights
from tunesmith.checkpoints.store import MANIFEST, entry_of, manifest_of, sealed
from tunesmith.core.files import write_json

Run = Callable[..., Any]
SETTINGS = {"max_grad_norm": 0, "warmup_steps": 2, "weight_decay": 0.1}


def pair(run: Run, folder: Path, **keys: Any) -> tuple[Any, Any]:
    after = run(output_dir=str(folder / "after"), **SETTINGS, **keys)
    return after, run(output_dir=str(folder / "within"), optimizer_in_bwd=True, **SETTINGS, **keys)


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "rmsprop", "adagrad"])
def test_every_optimizer_gives_the_same_bits(run: Run, tmp_path: Path, optim: str) -> None:
    after, within = pair(run, tmp_path, finetuning_type="full", optim=optim)
    assert same_weights(after, within)
    for (loss, norm), (other_loss, other_norm) in zip(curve(within), curve(after), strict=True):
        assert loss == other_loss
        assert norm == pytest.approx(other_norm, rel=1e-6)
        assert norm > 0
    assert column(after, "lr") == column(within, "lr")


@pytest.mark.parametrize(
    "keys",
    [
        {"lora_dropout": 0.1},
        {"use_dora": True},
        {"finetuning_type": "full", "use_reentrant_gc": False},
        {"finetuning_type": "full", "disable_gradient_checkpointing": True, "fast_path": "off"},
        {"finetuning_type": "full", "bf16": True},
        {"finetuning_type": "freeze", "freeze_trainable_layers": 1, "gradient_checkpointing_mode": "selective"},
    ],
)
def test_other_ways_to_train_give_the_same_bits(run: Run, tmp_path: Path, keys: dict[str, Any]) -> None:
    assert same_weights(*pair(run, tmp_path, **keys))


def test_a_resumed_run_gives_the_same_bits(run: Run, tmp_path: Path) -> None:
    keys = {**SETTINGS, "finetuning_type": "full", "optimizer_in_bwd": True}
    whole = run(output_dir=str(tmp_path / "whole"), save_strategy="steps", save_steps=2, **keys)
    checkpoint = str(tmp_path / "whole" / "checkpoint-2")
    resumed = run(output_dir=str(tmp_path / "resumed"), resume_from_checkpoint=checkpoint, **keys)
    assert same_weights(whole, resumed)
    # the states are those of the ordinary optimizer, which goes on with them
    after = run(
        output_dir=str(tmp_path / "after"),
        resume_from_checkpoint=checkpoint,
        **{**keys, "optimizer_in_bwd": False},
    )
    assert same_weights(whole, after)


def test_no_step_is_tried_or_made_in_parts(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A backward pass that changes weights leaves a trace: it is not tried before the first step, and a checkpoint of a
    run that had to make steps in parts does not make this one do so."""
    caplog.set_level("INFO")
    keys = {"finetuning_type": "full", "max_steps": 12, "save_strategy": "steps", "save_steps": 6}
    after, within = pair(run, tmp_path, **keys)
    assert same_weights(after, within)
    assert "not tried first: optimizer_in_bwd: true" in caplog.text
    checkpoint = within.output_dir / "checkpoint-6"
    (checkpoint / "memory.json").write_text('{"train": 30}')
    manifest = manifest_of(checkpoint)
    manifest["files"]["memory.json"] = entry_of(checkpoint / "memory.json")
    write_json(checkpoint / MANIFEST, sealed(manifest))
    keys |= {**SETTINGS, "optimizer_in_bwd": True, "resume_from_checkpoint": str(checkpoint)}
    assert same_weights(run(output_dir=str(tmp_path / "resumed"), **keys), within)


def test_divergence_says_that_weights_were_changed(run: Run) -> None:
    from tunesmith.core.errors import DivergedError

    with pytest.raises(DivergedError) as caught:
        run(**SETTINGS | {"warmup_steps": 0}, finetuning_type="full", learning_rate=1e30, optimizer_in_bwd=True)
    (problem,) = caught.value.problems
    assert problem.code == "E-TRAIN-003"
    assert "has changed weights" in str(problem.where)
