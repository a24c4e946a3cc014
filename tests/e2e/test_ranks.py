"""Several processes: who ended is named, and a run goes on with another number of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tunesmith.checkpoints.store import committed, verify


@pytest.mark.slow
def test_a_rank_that_is_killed_is_named_and_the_run_can_go_on(run_keys, tmp_path: Path, launch) -> None:
    keys = {**run_keys, "max_steps": 400, "save_strategy": "steps", "save_steps": 5, "per_device_train_batch_size": 2}
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(keys))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=localhost:0", "-m", "tunesmith", "train", str(config)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env) as launcher:
        out = Path(keys["output_dir"])
        end = time.monotonic() + 200
        while len(committed(out)) < 2 and time.monotonic() < end and launcher.poll() is None:
            time.sleep(0.1)
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        ranks = {int(rank_of(pid)): int(pid) for pid in children if rank_of(pid)}
        os.kill(ranks[1], signal.SIGKILL)
        killed = time.monotonic()
        text, _ = launcher.communicate(timeout=60)
    assert time.monotonic() - killed < 30
    assert launcher.returncode != 0
    assert f"rank 1 (process {ranks[1]} on" in text, text[-3000:]
    assert all(verify(folder) is None for folder in committed(out))
    lines = launch(2, {**keys, "max_steps": committed_step(out) + 2})
    assert lines[-1]["current_steps"] == committed_step(out)


def committed_step(output_dir: Path) -> int:
    return int(committed(output_dir)[-1].name.removeprefix("checkpoint-"))


def rank_of(pid: str) -> str | None:
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    found = [one.partition(b"=")[2].decode() for one in variables if one.startswith(b"RANK=")]
    return found[0] if found else None
