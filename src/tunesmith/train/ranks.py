"""Processes of one run: their numbers together, and which of them has ended."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from tunesmith.core.errors import PreemptedError, Problem
from tunesmith.core.log import get_logger
from tunesmith.core.process import ProcessId

__all__ = ["naming_lost_ranks", "over_ranks", "values_over_ranks"]

_WORDS = ("Connection closed", "Connection reset", "Broken pipe", "Socket", "NCCL", "Gloo", "gloo", "timed out")
_PATIENCE = 5.0
"""Seconds in which a process whose connection broke is seen to be gone."""
_HEAD_START = 2.0
"""Seconds in which the launcher notices the process that ended first, so that it names that one too."""


def over_ranks(accelerator: Any, numbers: list[float]) -> np.ndarray:
    """[N] numbers of this process -> [ranks, N]. One process asks no device."""
    if accelerator.num_processes == 1:
        return np.asarray([numbers])
    device = accelerator.device
    kind = torch.float64 if device.type != "mps" else torch.float32
    return np.asarray(accelerator.gather(torch.tensor([numbers], dtype=kind, device=device)).tolist())


def values_over_ranks(accelerator: Any, values: Sequence[Any]) -> list[list[Any]]:
    """Plain values (those of JSON) of this process -> those of each rank. The ranks may have different numbers."""
    data = json.dumps(list(values)).encode("ascii")
    sizes = [int(size) for size in over_ranks(accelerator, [len(data)])[:, 0]]
    every = over_ranks(accelerator, [float(byte) for byte in data.ljust(max(sizes))]).astype(np.uint8)
    return [json.loads(bytes(row[:size])) for row, size in zip(every, sizes, strict=True)]


@contextmanager
def naming_lost_ranks(ranks: int) -> Iterator[None]:
    """Turn a broken connection into an error that names the rank which has ended, where that is on this host.

    Raises PreemptedError: the run is whole up to its last checkpoint, and can go on.
    """
    if ranks == 1:
        yield
        return
    from accelerate.utils import gather_object

    processes = [ProcessId.from_dict(one) for one in gather_object([ProcessId.of().to_dict()])]
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error) for word in _WORDS):
            raise
        lost = _lost(processes)
        where = ", ".join(f"rank {rank} ({process})" for rank, process in lost) or "a rank on another host"
        what = "another process of the run has ended"
        get_logger().error("%s: %s", what, where)  # the launcher may end this process before it says more
        time.sleep(_HEAD_START)
        fix = "see what that process wrote, or what the system says (out of memory?); the same command goes on"
        raise PreemptedError(Problem("E-TRAIN-084", what, where, " ".join(str(error).split()), fix)) from error


def _lost(processes: list[ProcessId]) -> list[tuple[int, ProcessId]]:
    end = time.monotonic() + _PATIENCE
    while True:
        lost = [(rank, one) for rank, one in enumerate(processes) if one.is_here and not one.is_alive]
        if lost or time.monotonic() > end:
            return lost
        time.sleep(0.1)
