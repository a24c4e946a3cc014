"""fp16: the scaler leaves out steps that overflow, and only a scaler that cannot give way any more ends the run.

The arithmetic is that of a GPU, on the processor: autocast to float16, and torch's own scaler.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import tunesmith
from tunesmith.core.errors import DivergedError
from tunesmith.train.trainer import Trainer


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`scaled(factor)`: every Trainer computes in float16 and scales its loss by that factor to begin with."""

    def install(factor: float) -> None:
        original = Trainer.__init__

        def init(self: Trainer, **settings: Any) -> None:
            original(self, **settings)
            self.accelerator.state._mixed_precision = "fp16"
            self.accelerator.native_amp = True
            self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=factor)

        monkeypatch.setattr(Trainer, "__init__", init)

    return install


@pytest.fixture
def keys(tiny_model: Path, tiny_data: Path, tmp_path: Path, torch_one_thread: None) -> dict[str, Any]:
    return {
        "model_name_or_path": str(tiny_model),
        "dataset": str(tiny_data / "new_openai.jsonl"),
        "output_dir": str(tmp_path / "out"),
        "per_device_train_batch_size": 4,
        "learning_rate": 5e-3,
        "max_steps": 8,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
    }


def lines(result: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (result.output_dir / "trainer_log.jsonl").read_text().splitlines()]


def test_steps_that_overflow_are_left_out(keys: dict[str, Any], scaled: Any) -> None:
    scaled(2.0**18)
    log = lines(tunesmith.train(keys))
    overflowed = [line["current_steps"] for line in log if "grad_norm" not in line]
    assert overflowed == list(range(1, len(overflowed) + 1)), "at the beginning, until the factor fits"
    assert 1 <= len(overflowed) < 6
    assert log[-1]["loss"] < log[0]["loss"]


def test_a_model_that_is_broken_still_ends_the_run(keys: dict[str, Any], scaled: Any) -> None:
    scaled(4.0)
    with pytest.raises(DivergedError) as caught:
        tunesmith.train({**keys, "learning_rate": 1e30, "max_grad_norm": 0.0})
    assert caught.value.code == "E-TRAIN-003"
