"""Out of memory on one of two ranks, and for real: a process that may not have more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests.run_logs import curve

pytestmark = [
    pytest.mark.slow,
    pytest.mark.row("R9"),
    pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux"),
]
ROOT = Path(__file__).resolve().parents[2]

_RANKS = """
import json, os, sys
import tunesmith
from tests.scarce_memory import Scarce
from tunesmith.objectives.sft import SupervisedFineTuning

scarce = Scarce(int(sys.argv[2]) if os.environ["RANK"] == "1" else 10**9)

def compute(*arguments):
    if len(scarce.seen) == int(sys.argv[3]):
        scarce.most = 30
    return scarce(*arguments)

SupervisedFineTuning.compute = compute
result = tunesmith.train(json.loads(sys.argv[1]))
print("SEEN", os.environ["RANK"], json.dumps(scarce.seen))
"""


@pytest.fixture
def keys(tiny_model: Path, tiny_data: Path, tmp_path: Path, torch_one_thread: None) -> dict[str, Any]:
    """16 chats of about 25 tokens, 8 in a step, 12 steps."""
    return {
        "model_name_or_path": str(tiny_model),
        "dataset": "new",
        "dataset_dir": str(tiny_data),
        "output_dir": str(tmp_path / "ranks"),
        "finetuning_type": "full",
        "per_device_train_batch_size": 4,
        "max_steps": 12,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "fast_path": "off",
    }


def in_two_ranks(keys: dict[str, Any], most: int, scarcer_after: int = -1) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=localhost:0", "--no-python", sys.executable, "-c", _RANKS]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    env["PYTHONPATH"] = f"{ROOT}{os.pathsep}{env.get('PYTHONPATH', '')}"
    command += [json.dumps(keys), str(most), str(scarcer_after)]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=240, check=False)


def seen_by_ranks(output: str) -> dict[str, list[int]]:
    lines = [line.split(maxsplit=2) for line in output.splitlines() if line.startswith("SEEN")]
    return {rank: json.loads(seen) for _, rank, seen in lines}


@pytest.mark.parametrize("probe", [True, False])
def test_ranks_halve_together(keys: dict[str, Any], tmp_path: Path, probe: bool) -> None:
    """Rank 1 has too little memory for four rows. Loss and gradient are those of one process that has enough."""
    whole = tunesmith.train({**keys, "output_dir": str(tmp_path / "whole"), "per_device_train_batch_size": 8})
    done = in_two_ranks({**keys, "memory_probe": probe}, most=90)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = seen_by_ranks(done.stdout)
    failed = [tokens for tokens in seen["1"] if tokens < 0]
    assert failed, "memory did run out"
    assert min(seen["0"]) > 0
    # Rank 0 has the limit as well, but for its whole attempts and the sequence without labels at a step's end.
    assert sum(tokens > -failed[-1] // 2 for tokens in seen["0"]) <= len(failed)
    lines = [json.loads(line) for line in (tmp_path / "ranks" / "trainer_log.jsonl").read_text().splitlines()]
    found = [(line["loss"], line["grad_norm"]) for line in lines if "loss" in line]
    for one, wanted in zip(found, curve(whole), strict=True):
        assert one == pytest.approx(wanted, rel=1e-4)
    assert found[0] == pytest.approx(curve(whole)[0], rel=1e-6)


def test_a_rank_that_fails_where_ranks_do_not_wait_stops_the_run(keys: dict[str, Any]) -> None:
    """Memory gets scarcer after the probe and a few steps: sizes that went well do no longer."""
    done = in_two_ranks(keys, most=10**9, scarcer_after=6)
    assert done.returncode != 0
    assert "E-TRAIN-030" in done.stderr
    assert "cannot be begun anew" in done.stderr


_LIMITED = """
import json, resource, sys
import tunesmith
from tunesmith.train.step_memory import StepMemory

begin = StepMemory.probe_once

def limit_and_begin(self, *arguments):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]) * 2**20, hard))
    StepMemory.probe_once = begin
    return begin(self, *arguments)

StepMemory.probe_once = limit_and_begin
tunesmith.train(json.loads(sys.argv[1]))
"""


def with_mebibytes(number: int, keys: dict[str, Any], output_dir: Path) -> Any:
    """Losses and norms, and train_results.json, of a process that may have so many beyond what it has before step 1."""
    command = [sys.executable, "-c", _LIMITED, json.dumps({**keys, "output_dir": str(output_dir)}), str(number)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in (output_dir / "trainer_log.jsonl").read_text().splitlines()]
    results = json.loads((output_dir / "train_results.json").read_text())
    return [(line["loss"], line["grad_norm"]) for line in lines if "loss" in line], results


def test_an_allocator_that_fails_is_survived(stories: Path, assets: Path, tmp_path: Path) -> None:
    """64 rows of up to 256 tokens, padded, with all activations and logits: some 400 MB at once."""
    keys = {
        "model_name_or_path": str(stories),
        "dataset": str(assets / "data" / "sft" / "alpaca_en_demo.json"),
        "template": "default",
        "finetuning_type": "full",
        "max_samples": 128,
        "cutoff_len": 256,
        "per_device_train_batch_size": 64,
        "max_steps": 2,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "fast_path": "off",
        "disable_gradient_checkpointing": True,
    }
    whole, results = with_mebibytes(10_000, keys, tmp_path / "whole")
    assert "train_memory_halvings" not in results
    halved, results = with_mebibytes(250, keys, tmp_path / "halved")
    assert results["train_memory_halvings"] >= 1
    for found, wanted in zip(halved, whole, strict=True):
        assert found == pytest.approx(wanted, rel=1e-5)
