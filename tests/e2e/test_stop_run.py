"""`tunesmith runs stop` on a run in another process: it saves and leaves, saves and goes on, or leaves at once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tunesmith.__main__ import main
from tunesmith.runs import manifest


@pytest.fixture
def start(tiny_model: Path, tiny_data: Path, tmp_path: Path, monkeypatch) -> Iterator[Callable[[], subprocess.Popen]]:
    """`start()`: a run of very many steps in `out`, when it has made a few of them."""
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    keys = {"model_name_or_path": str(tiny_model), "dataset": "new", "dataset_dir": str(tiny_data), "output_dir": "out"}
    keys |= {"max_steps": 100_000, "logging_steps": 1, "save_strategy": "no", "use_cpu": True}
    Path("run.yaml").write_text(yaml.safe_dump(keys))
    running: list[subprocess.Popen] = []

    def begin() -> subprocess.Popen:
        at = steps()
        command = [sys.executable, "-m", "tunesmith", "train", "run.yaml"]
        running.append(subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
        while steps() < at + 2:
            time.sleep(0.1)
            assert running[-1].poll() is None
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.wait()


def steps() -> int:
    log = Path("out", "trainer_log.jsonl")
    return len(log.read_text().splitlines()) if log.exists() else 0


def told(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_stop_save_and_now(start, capsys) -> None:
    process = start()
    assert main(["runs", "stop", "out/", "--save", "--json"]) == 0
    after = told(capsys)
    assert after["status"] == "running"
    assert len(list(Path("out").glob("checkpoint-*"))) == 1
    assert process.poll() is None

    assert main(["runs", "stop", "out/", "--json"]) == 0
    after = told(capsys)
    assert process.wait(timeout=30) == 75
    assert (after["status"], after["exit_code"]) == ("stopped", 75)
    newest = max(int(folder.name.split("-")[1]) for folder in Path("out").glob("checkpoint-*"))
    assert newest == after["done"]

    process = start()
    found = manifest.read(Path("out"))
    assert (found["id"], found["status"], found["steps"]["total"]) == (after["id"], "running", 100_000)
    assert main(["runs", "stop", "out/", "--now", "--json"]) == 0
    after = told(capsys)
    assert after["status"] == "stopped"
    assert process.wait(timeout=30) == 130
    assert after["exit_code"] in (130, None)  # None: it was ended in the middle of a call
