"""Two processes (gloo): what happens to one of them is what both do about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.run_logs import same_weights

Launch = Callable[..., Any]

SCRIPT = """
import json, os, signal, sys
import tunesmith
from tunesmith.core.errors import TunesmithError
from tunesmith.train.trainer import Trainer

keys, fault, step = json.loads(sys.argv[1]), sys.argv[2], 3
original, loop = Trainer.compute_loss, Trainer.evaluation_loop

def compute_loss(self, *arguments, **keywords):
    loss = original(self, *arguments, **keywords)
    if os.environ["RANK"] == "1" and self.state.global_step + 1 == step:
        if fault == "SIGTERM":
            os.kill(os.getpid(), signal.SIGTERM)
        elif fault == "nan":
            loss = loss * float("nan")
        elif fault == "constant":  # the loss alone: the gradient of this rank is finite, and so is the sum of both
            loss = loss + (loss * float("inf")).detach()
    return loss

def evaluation_loop(self, *arguments, **keywords):
    if os.environ["RANK"] == "1" and fault == "evaluation" and self.state.global_step == 4:
        os.kill(os.getpid(), signal.SIGTERM)
    return loop(self, *arguments, **keywords)

Trainer.compute_loss, Trainer.evaluation_loop = compute_loss, evaluation_loop
try:
    tunesmith.train(keys)
except TunesmithError as error:
    print(f"rank {os.environ['RANK']} ended: {error.exit_code} {error.code}", flush=True)
"""


@pytest.fixture
def launch(run_keys: dict[str, Any], tiny_model: Path, tiny_data: Path, tmp_path: Path) -> Launch:
    """`launch(name, fault, key=value, ...)` -> (an object with the folder, what it printed)."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    class Result:
        def __init__(self, folder: Path) -> None:
            self.output_dir = folder

    def run(name: str, fault: str = "none", **changes: Any) -> tuple[Result, str]:
        folder = tmp_path / name
        keys = {**run_keys, "model_name_or_path": str(tiny_model), "dataset": "new", "dataset_dir": str(tiny_data)}
        keys |= {"output_dir": str(folder), "per_device_train_batch_size": 2, "finetuning_type": "lora", **changes}
        keys |= {"template": "auto", "lora_dropout": 0.1}
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv-backend=c10d"]
        command += ["--rdzv-endpoint=localhost:0", str(script), json.dumps(keys), fault]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=240, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return Result(folder), done.stdout

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "step", "keys"),
    [("SIGTERM", 3, {}), ("evaluation", 4, {"val_size": 4, "eval_strategy": "steps", "eval_steps": 2})],
)
def test_a_signal_to_one_stops_both(launch: Launch, fault: str, step: int, keys: dict[str, Any]) -> None:
    whole, _ = launch("whole", **keys)
    stopped, told = launch("out", fault, **keys)
    assert "rank 0 ended: 75 E-TRAIN-060" in told
    assert "rank 1 ended: 75 E-TRAIN-060" in told
    assert [path.name for path in stopped.output_dir.glob("checkpoint-*")] == [f"checkpoint-{step}"]
    again, _ = launch("out", **keys)
    assert same_weights(whole, again)


@pytest.mark.slow
@pytest.mark.row("R8")
@pytest.mark.parametrize("fault", ["nan", "constant"])
def test_a_loss_on_one_rank_stops_both(launch: Launch, fault: str) -> None:
    stopped, told = launch("out", fault)
    assert "rank 0 ended: 76 E-TRAIN-003" in told
    assert "rank 1 ended: 76 E-TRAIN-003" in told
    (line,) = [json.loads(line) for line in (stopped.output_dir / "anomalies.jsonl").read_text().splitlines()]
    assert line["kind"] == "nonfinite_loss"
    assert [len(rank) for rank in line["loss"]] == [1, 1]
    assert isinstance(line["loss"][0][0], float)
    assert line["loss"][1][0] in ("nan", "inf")
    assert [len(rank[0]) for rank in line["places"]] == [2, 2]


@pytest.mark.slow
@pytest.mark.row("R8")
def test_both_leave_the_step_out(launch: Launch) -> None:
    skipped, _ = launch("skip", "nan", on_nonfinite="skip")
    back, _ = launch("back", "constant", on_nonfinite="rollback", save_strategy="steps", save_steps=1)
    assert same_weights(skipped, back)
