"""The command itself, in a process of its own: exit codes, the group of a scheduler, a terminal that is closed."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.run_logs import same_weights
from tests.stand_in_hub import StandInHub
from tunesmith.core.signals import GRACE

KEYS = {"max_steps": 60, "logging_steps": 1, "save_strategy": "no", "use_cpu": True, "lora_dropout": 0.1}


@pytest.fixture
def command(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """`command(name, key=value, ...)`: the words that start a run in that folder."""

    def words(name: str, **keys: Any) -> list[str]:
        config = tmp_path / f"{name}.yaml"
        of_model = {"model_name_or_path": str(tiny_model), "dataset": "new", "dataset_dir": str(tiny_data)}
        config.write_text(yaml.safe_dump({**of_model, **KEYS, "output_dir": str(tmp_path / name), **keys}))
        return [sys.executable, "-m", "tunesmith", "train", str(config)]

    return words


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`start(words)`: in a session of its own."""
    running: list[subprocess.Popen[str]] = []

    def begin(words: list[str]) -> subprocess.Popen[str]:
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        how: Any = {**quiet, "text": True, "start_new_session": True, "preexec_fn": heeds_signals}
        running.append(subprocess.Popen(words, **how))
        return running[-1]

    yield begin
    for process in running:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def heeds_signals() -> None:
    """In the child: whatever the shell that started the tests ignores (nohup, a job in the background)."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Folder:
    def __init__(self, path: Path) -> None:
        self.output_dir = path


def wait_for_steps(folder: Path, steps: int) -> None:
    log, end = folder / "trainer_log.jsonl", time.monotonic() + 120
    while not log.exists() or log.read_text().count("\n") < steps:
        assert time.monotonic() < end, "the run makes no steps"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("keys", [{}, {"dataloader_num_workers": 2}, {"streaming": True, "buffer_size": 5}])
def test_a_scheduler_stops_the_whole_group(command: Any, start: Any, tmp_path: Path, keys: dict[str, Any]) -> None:
    """Workers get the signal too. Twice stopped, the run ends as one that was not."""
    subprocess.run(command("whole", **keys), check=True, capture_output=True)
    words = command("out", **keys)
    for steps in (10, 30):
        process = start(words)
        wait_for_steps(tmp_path / "out", steps)
        os.killpg(process.pid, signal.SIGTERM)
        told = process.communicate(timeout=60)[1]
        assert process.returncode == 75, told
        assert "error[E-TRAIN-060]" in told
        assert "the same command goes on from there" in told
    subprocess.run(words, check=True, capture_output=True)
    assert same_weights(Folder(tmp_path / "whole"), Folder(tmp_path / "out"))


@pytest.mark.slow
@pytest.mark.row("R4")
@pytest.mark.parametrize("delay", [0.6, 1.2, 2.0, 3.0])
def test_in_each_phase_before_training_the_code_is_75(command: Any, start: Any, delay: float) -> None:
    """From a moment after the interpreter is there, over importing, data and model, to the first steps."""
    process = start(command("out"))
    time.sleep(delay)
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 75, told
    assert "E-TRAIN-06" in told


@pytest.mark.slow
@pytest.mark.row("R4")
@pytest.mark.parametrize("what", ["model_name_or_path", "dataset"])
def test_a_download_is_left_at_once(
    command: Any, start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Of a hub that does not answer. With what was to be fetched the same folder trains as if nothing had been."""
    hub = StandInHub("hang")
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    try:
        process = start(command("out", **{what: "owner/name" if what != "dataset" else f"{hub.address}/rows.jsonl"}))
        assert hub.asked.wait(60), "nothing is fetched"
        process.send_signal(signal.SIGTERM)
        begin = time.monotonic()
        told = process.communicate(timeout=60)[1]
    finally:
        hub.close()
    assert (process.returncode, "E-TRAIN-06" in told) == (75, True), told
    assert time.monotonic() - begin < GRACE
    short = {"max_steps": 3}
    subprocess.run(command("out", **short), check=True, capture_output=True)
    subprocess.run(command("whole", **short), check=True, capture_output=True)
    assert same_weights(Folder(tmp_path / "whole"), Folder(tmp_path / "out"))


@pytest.mark.faults
@pytest.mark.row("R4")
def test_a_signal_while_a_model_is_compiled(command: Any, start: Any, tmp_path: Path) -> None:
    """The first step compiles, for seconds: it is made and saved, or the grace ends it. Both go on to the same bits."""
    keys = {"max_steps": 4, "torch_compile": True}
    process = start(command("out", **keys))
    end = time.monotonic() + 120
    while '"status": "running"' not in _text(tmp_path / "out" / "run.json"):
        assert time.monotonic() < end, "the run does not begin"
        time.sleep(0.02)
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    begin = time.monotonic()
    told = process.communicate(timeout=90)[1]
    assert process.returncode == 75, told
    assert time.monotonic() - begin < GRACE + 5
    subprocess.run(command("out", **keys), check=True, capture_output=True)
    subprocess.run(command("whole", **keys), check=True, capture_output=True)
    assert same_weights(Folder(tmp_path / "whole"), Folder(tmp_path / "out"))


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.mark.slow
@pytest.mark.row("R5")
def test_a_terminal_that_is_closed_saves(command: Any, tmp_path: Path) -> None:
    words = command("out", max_steps=100_000)
    process, terminal = pty.fork()
    if not process:
        heeds_signals()
        os.execv(words[0], words)
    try:
        wait_for_steps(tmp_path / "out", 3)
        os.close(terminal)  # the system sends SIGHUP
        end = time.monotonic() + 60
        while (found := os.waitpid(process, os.WNOHANG)) == (0, 0):
            assert time.monotonic() < end, "it trains on"
            time.sleep(0.05)
        assert os.waitstatus_to_exitcode(found[1]) == 75
        process = 0
    finally:
        if process:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
    assert len(list((tmp_path / "out").glob("checkpoint-*"))) == 1


@pytest.mark.slow
@pytest.mark.row("R5")
def test_two_interrupts_leave_within_two_seconds(command: Any, start: Any, tmp_path: Path) -> None:
    process = start(command("out", max_steps=100_000))
    wait_for_steps(tmp_path / "out", 3)
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.wait(20)
    assert time.monotonic() - begin < 4, "two seconds, on a machine that does nothing else"
    assert process.returncode in (75, 130), "75 where it was quicker to save"
