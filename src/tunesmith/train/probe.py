"""Does the largest micro-batch of a run fit? Found out before the first step, and without a trace.

It runs forward and backward beside as much memory as the states of the optimizer will take, and beside gradients where
the run accumulates them. Then gradients and the states of all generators are as before; weights and optimizer were
never touched. Which micro-batch is the largest follows from the lengths of the rows and the order of every epoch; a
stream, whose rows are not known, is taken at its word: rows of `cutoff_len`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from tunesmith.checkpoints.chance import Chance
from tunesmith.core.log import get_logger
from tunesmith.models.out_of_memory import free_memory
from tunesmith.train.sampler import BLANK, RankBatchSampler

__all__ = ["FEW", "Reached", "available_memory", "beside_states", "full_rows", "largest_rows"]

FEW = 10
"""Micro-batches: a run of no more than these is over, or out of memory, before it is worth to ask."""
_MOST_ROWS = 5_000_000
"""Rows whose order is drawn to find the largest micro-batch: below a second."""
_SPARE = 0.05  # of what is available, for what grows slowly


class Reached(NamedTuple):
    """How much of the data a run sees: from which epoch on, and how many optimizer steps in all."""

    first_epoch: int
    steps: int
    accumulation: int

    def epochs(self, batches: int) -> Iterator[tuple[int, int]]:
        """(epoch, how many of its `batches` micro-batches are used)."""
        each = -(-batches // self.accumulation)
        for epoch in range(self.first_epoch, -(-self.steps // each)):
            yield epoch, min(batches, (self.steps - epoch * each) * self.accumulation)


def largest_rows(sampler: RankBatchSampler, lengths: Any, reached: Reached, *, padded: bool) -> list[int]:
    """The rows of this rank's largest micro-batch, by its positions and then by its longest row. Later epochs of a very
    long run are not looked at."""
    lengths = np.append(np.asarray(lengths), 0)  # BLANK is -1: no tokens
    best: tuple[tuple[int, int], list[int]] = ((-1, -1), [])
    looked = 0
    for epoch, used in reached.epochs(len(sampler)):
        rows = sampler.rows(epoch)[:used]
        sizes = lengths[rows]
        longest = sizes.max(1)
        positions = longest * (rows != BLANK).sum(1) if padded else sizes.sum(1)
        place = int(np.lexsort((longest, positions))[-1])
        found = (int(positions[place]), int(longest[place]))
        best = max(best, (found, rows[place][rows[place] != BLANK].tolist()), key=lambda one: one[0])
        looked += rows.size
        if looked > _MOST_ROWS:
            break
    return best[1]


def full_rows(count: int, length: int) -> list[Mapping[str, Any]]:
    """`count` rows of `length` tokens, all trained."""
    row = {"input_ids": np.zeros(length, np.int32), "trained": np.ones(length, np.bool_)}
    return [row] * count


@contextmanager
def beside_states(model: Any, states: int, *, accumulates: bool, device: torch.device) -> Iterator[None]:
    """As much memory as `states` bytes is taken, and gradients are there where the run `accumulates`. Afterwards there
    are none, and chance is as it was. A warning tells where a processor's memory is scarce."""
    chance = Chance(device)
    held = torch.empty(states, dtype=torch.uint8, device=device)
    watch = _MainMemory() if device.type == "cpu" else None
    try:
        if accumulates:
            for weight in model.parameters():
                if weight.requires_grad:
                    weight.grad = torch.zeros_like(weight)
        yield
        if watch is not None:
            watch.warn_if_scarce(states)
    finally:
        del held
        model.zero_grad()
        free_memory(device)
        chance.restore()


class _MainMemory:
    """What a micro-batch takes of main memory, whose end is no error: the kernel ends the process. Linux tells it."""

    def __init__(self) -> None:
        self._available = available_memory()
        self._before, self._peak = _own_memory()

    def warn_if_scarce(self, states: int) -> None:
        """`states`: bytes that are still to come. What stayed below an earlier peak of the process is not known."""
        _, peak = _own_memory()
        if self._available is None or peak <= self._peak:
            return
        need = peak - self._before + states
        if need > self._available * (1 - _SPARE):
            get_logger().warning(
                "memory is scarce: a step takes about %.1f GiB more than the run has now, and %.1f GiB are available; "
                "the kernel may end the run without a word. Write a shorter cutoff_len or a smaller "
                "per_device_train_batch_size",
                *(need / 2**30, self._available / 2**30),
            )


def _own_memory() -> tuple[int, int]:
    """(bytes that this process has now, the most it ever had); 0 where the system does not tell."""
    found = _kib_of(Path("/proc/self/status"))
    return found.get("VmRSS", 0), found.get("VmHWM", 0)


def available_memory() -> int | None:
    """Bytes of main memory that can still be had, by the system or the container; None where nobody tells."""
    system = _kib_of(Path("/proc/meminfo")).get("MemAvailable")
    found = [] if system is None else [system]
    for most, used in _CONTAINER:
        with suppress(OSError, ValueError):  # no such file, or "max": no limit
            found.append(int(Path(most).read_text("utf-8")) - int(Path(used).read_text("utf-8")))
    return min(found, default=None)


# Limits of a container: (most, used), by the second and the first version of control groups.
_CONTAINER = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def _kib_of(file: Path) -> dict[str, int]:
    """Lines `Name:  number kB` as bytes by name; none where there is no such file."""
    try:
        lines = [line.split() for line in file.read_text("utf-8").splitlines()]
    except OSError:
        return {}
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[2:] == ["kB"]}
