"""A run in a process of its own, by which no measurement finds what another has left.

A script calls `run(__file__, keys)`, which starts it again as `script --child KEYS`; there it calls `train` and prints
what it found as the last line, in JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from tempfile import TemporaryDirectory
from typing import Any

RUN = {"stage": "sft", "logging_steps": 1, "save_strategy": "no", "overwrite_output_dir": True}
"""Keys that all runs of bench/ have."""


def command(script: str, told: Mapping[str, Any]) -> list[str]:
    return [sys.executable, script, "--child", json.dumps(told)]


def run(script: str, told: Mapping[str, Any]) -> Any:
    """What the process prints last; where it fails, this one ends with its message."""
    return last_line(subprocess.run(command(script, told), capture_output=True, text=True, check=False))


def last_line(done: subprocess.CompletedProcess[str]) -> Any:
    if done.returncode:
        sys.exit(f"{' '.join(done.args)} ended with {done.returncode}:\n{done.stderr[-6000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def train(keys: Mapping[str, Any], *callbacks: Any) -> None:
    """`tunesmith.train`, with callbacks that begin when training does: after data, weights and the proof."""
    import tunesmith
    from tunesmith.train.trainer import Trainer

    original = Trainer.train

    def watched(self: Any, *arguments: Any, **keywords: Any) -> Any:
        for callback in callbacks:
            self.add_callback(callback)
        return original(self, *arguments, **keywords)

    Trainer.train = watched  # type: ignore[method-assign]
    with TemporaryDirectory() as home:
        os.environ["TUNESMITH_HOME"] = home  # not among the user's runs
        tunesmith.train({**RUN, **keys})
