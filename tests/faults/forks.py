"""The tests' side of the fork server: start runs, kill them, wait for them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.faults import shim
from tests.faults.child import At

__all__ = ["Child", "ForkServer"]

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 600.0
"""Seconds after which a run hangs."""


@dataclass(slots=True)
class Child:
    """A run that was started. `output` is the file of what it prints."""

    server: ForkServer
    pid: int
    output: Path
    code: int | None = None

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the run alone, if it still is."""
        if self.code is None:
            os.kill(self.pid, number)  # not reaped yet, so the number is still its own

    def over(self, seconds: float) -> int | None:
        """How it ended within these seconds: the exit code or minus a signal's number; None while it runs."""
        if self.code is None:
            self.code = self.server.ask({"wait": self.pid, "seconds": seconds})["status"]
        return self.code

    def wait(self, seconds: float = LONGEST) -> int:
        """How it ended. One that does not end is killed with its children, and the test fails."""
        code = self.over(seconds)
        if code is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.over(10)
            raise AssertionError(f"the run still went on after {seconds} s:\n{self.text[-2000:]}")
        return code

    @property
    def text(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")


class ForkServer:
    def __init__(self, folder: Path) -> None:
        """Everything the runs keep lies in `folder`. Takes as long as the imports."""
        self.folder = folder
        self.count = 0
        environment = {
            **os.environ,
            "LD_PRELOAD": str(shim.build(folder)),
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "TUNESMITH_CACHE": str(folder / "cache"),
            "TUNESMITH_HOME": str(folder / "home"),
            "TUNESMITH_DATA_CACHE": str(folder / "data"),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        self._read()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the fork server has ended"
        found: dict[str, Any] = json.loads(line)
        return found

    def start(
        self,
        words: list[str],
        *,
        at: list[At] | None = None,
        arm: shim.Arm | None = None,
        environment: dict[str, str] | None = None,
        cwd: Path | None = None,
        learn: Path | None = None,
        ranks: int = 1,
    ) -> Child:
        """Start `tunesmith WORDS...` in a child, or in so many ranks. `at`: what happens at which step (child.py)."""
        self.count += 1
        output = self.folder / f"run{self.count}.txt"
        told = {
            "words": words,
            "at": at or [],
            "arm": None if arm is None else asdict(arm),
            "environment": environment or {},
            "cwd": str(cwd or self.folder),
            "learn": None if learn is None else str(learn),
            "output": str(output),
            "ranks": ranks,
        }
        return Child(self, self.ask({"start": told})["pid"], output)

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait(timeout=30)
