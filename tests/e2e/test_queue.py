"""The queue with real training: order without a shell, and a run that is killed with all beside it and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fake_jobs import runner_process
from tunesmith.core.process import ProcessId
from tunesmith.runs.queue.store import Queue

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
TUNESMITH = f"{sys.executable} -m tunesmith"


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT)]))
    return Queue()


def wait(until: Callable[[], Any], seconds: float = 150.0) -> None:
    last = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < last, [(job.number, job.state, job.attempts) for job in Queue().jobs()]
        time.sleep(0.05)


def losses(folder: Path) -> dict[int, float]:
    """Loss by step; a step that was made again counts as it was made last."""
    lines = map(json.loads, (folder / "trainer_log.jsonl").read_text().splitlines())
    return {line["current_steps"]: line["loss"] for line in lines if "loss" in line}


def test_two_runs_in_order_after_the_shell_that_queued_them_is_gone(
    queue: Queue, run_keys: dict[str, Any], tmp_path: Path
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({**run_keys, "max_steps": 2, "output_dir": str(tmp_path / "first")}))
    second = f"output_dir={tmp_path / 'second'}"
    script = f"{TUNESMITH} queue add {config}\n{TUNESMITH} queue add {config} {second}\necho added\nsleep 100"
    shell = subprocess.Popen(["/bin/bash", "-c", script], stdout=subprocess.PIPE, start_new_session=True, text=True)
    assert shell.stdout is not None
    said = [shell.stdout.readline() for _ in range(3)]
    assert said[0] == "job 1 (first) is queued, none before it\n"
    assert said[-1] == "added\n"
    os.killpg(shell.pid, signal.SIGKILL)
    shell.wait()
    shell.stdout.close()
    assert not (tmp_path / "second").exists()
    wait(lambda: all(job.state == "done" for job in queue.jobs()))
    one, two = (job.attempts[0] for job in queue.jobs())
    assert one.ended is not None
    assert one.ended <= two.started
    assert losses(tmp_path / "first") == losses(tmp_path / "second")
    wait(lambda: not queue.has_runner())


def test_a_run_that_is_killed_goes_on_from_its_checkpoint_also_under_another_runner(
    queue: Queue, run_keys: dict[str, Any], tmp_path: Path
) -> None:
    """Runner, keeper and run are killed at step 4 or later, as by a reboot; a new runner finishes the run, and its
    losses are those of a run that was left alone."""
    keys = {**run_keys, "num_train_epochs": 8, "save_strategy": "steps", "save_steps": 2}
    for name in ("killed", "alone"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({**keys, "output_dir": str(tmp_path / name)}))
        words = [sys.executable, "-m", "tunesmith", "queue", "add", str(tmp_path / f"{name}.yaml"), "--no-start"]
        subprocess.run(words, check=True, capture_output=True)
    runner = runner_process(queue)
    wait(lambda: (tmp_path / "killed" / "checkpoint-4").exists())
    record = json.loads((queue.folder / "1" / "1.process.json").read_text())
    runner.kill()
    runner.wait()
    for who in ("keeper", "process"):
        os.kill(ProcessId.from_dict(record[who]).pid, signal.SIGKILL)
    wait(lambda: not any(ProcessId.from_dict(record[who]).is_alive for who in ("keeper", "process")))
    assert runner_process(queue).wait(200) == 0
    first, second = queue.jobs()
    assert (first.state, second.state) == ("done", "done")
    assert [attempt.exit_code for attempt in first.attempts] == [None, 0]
    assert first.retries_left == first.retries
    assert losses(tmp_path / "killed") == losses(tmp_path / "alone")
    assert "checkpoint-" in (queue.folder / "1" / "2.log").read_text()
