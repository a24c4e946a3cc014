"""What bench/sft.py and gpu.py measure in a training, the same in Tunesmith's and in a peer's environment.

`Watch` is a callback of transformers' Trainer. Nothing of Tunesmith is imported; a peer's script, which lies beside
this file, hands it to its trainer and ends with `watch.print_report(...)`.
"""

from __future__ import annotations

import ctypes
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback


class Watch(TrainerCallback):  # type: ignore[misc]
    """Seconds, loss and gradient norm of each step, and how far memory rose in training.

    A step is timed from the end of the one before: each step's loss is logged, for which a GPU is waited for. Memory
    counts from what a forward pass over all weights leaves: weights that are mapped from a file take memory only once
    they are read. It is that of the process, or what torch has of a GPU.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self.norms: list[float] = []
        self._peak = 0.0

    def on_train_begin(self, _args: Any, _state: Any, _control: Any, model: Any = None, **_more: Any) -> None:
        self._model = model
        device = next(model.parameters()).device
        self._memory = _Device() if device.type == "cuda" else _Process()
        with torch.no_grad():
            model(input_ids=torch.arange(8, device=device)[None])
        self._before = self._memory.begin()
        self._last = time.perf_counter()

    def on_step_end(self, *_arguments: Any, **_more: Any) -> None:
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now
        self._peak = self._memory.peak()

    def on_log(self, _args: Any, _state: Any, _control: Any, logs: Any = None, **_more: Any) -> None:
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))
            self.norms.append(float(logs["grad_norm"]))

    def print_report(self, *packages: str) -> None:
        """One line of JSON: seconds of all steps but the first, losses, gradient norms, memory in MB, versions, and
        what has to be the same in all runs: how many parameters are trained, and whether activations are kept."""
        modules, parameters = list(self._model.modules()), list(self._model.parameters())
        report = {
            "seconds": self.seconds[1:],
            "losses": self.losses,
            "norms": self.norms,
            "growth": (self._peak - self._before) / 1000,
            "peak": self._peak / 1000,
            "trained_parameters": sum(one.numel() for one in parameters if one.requires_grad),
            "checkpointing": any(getattr(one, "gradient_checkpointing", False) for one in modules),
            "threads": torch.get_num_threads(),
            "versions": {name: version(name) for name in (*packages, "transformers", "peft", "torch")},
        }
        print()
        print(json.dumps(report))


class _Process:
    """KB of this process."""

    def begin(self) -> float:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed before does not hide what is taken from here on
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        return _kilobytes("VmRSS")

    def peak(self) -> float:
        return _kilobytes("VmHWM")


class _Device:
    """KB of a GPU."""

    def begin(self) -> float:
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 1000

    def peak(self) -> float:
        return torch.cuda.max_memory_allocated() / 1000


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
