"""How fast a run trains, and what it waits for: tokens, samples and FLOPs over the seconds of training.

The clock runs from the first batch that is asked for, and stands still in evaluation and while checkpoints are written.
On it lie two more: waiting for data (the loader, copies to the device), and computing (forward, backward, optimizer).
They are clocks of the process: nothing here asks a device whether it is done. A GPU that works on while the process
does something else makes `overhead_share` the most that it can be idle.

docs/logs.md says what each figure means.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from transformers import TrainerCallback

from tunesmith.data.collate import sequence_lengths, tokens_before
from tunesmith.models.flops import TokenFlops, measure_flops
from tunesmith.train.metrics import StepSums

if TYPE_CHECKING:
    from tunesmith.objectives import Objective

__all__ = ["BadMedia", "Throughput", "Totals", "Work", "peak_memory_gib", "rates"]


_NOTHING = (0.0, 0.0, 0.0, 0.0, 0.0)


@runtime_checkable
class Measured(Protocol):
    """A reference that knows what it costs to ask it."""

    def flops(self) -> TokenFlops: ...


class Work(NamedTuple):
    """What is in some batches. tokens: all but padding. trained: those that have a label. samples: sequences.
    bad_media: of these, those that nothing was trained of, as a medium of theirs could not be read."""

    tokens: float
    trained: float
    samples: float
    flops: float
    bad_media: float = 0.0


@dataclass(slots=True)
class BadMedia:
    """Sequences with media that could not be read, in the whole run, and how many of them a log line has told."""

    count: int = 0
    told: int = 0

    def event(self) -> dict[str, float]:
        """Those since the last line, if there are any."""
        new, self.told = self.count - self.told, self.count
        return {"bad_media": new} if new else {}


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums since training began. seconds: on the clock of training; waited and computed: of these, on this process.
    The others are of all processes together."""

    seconds: float = 0.0
    waited: float = 0.0
    computed: float = 0.0
    steps: float = 0.0
    tokens: float = 0.0
    trained: float = 0.0
    samples: float = 0.0
    flops: float = 0.0

    def since(self, earlier: Totals) -> Totals:
        return Totals(*(one - other for one, other in zip(astuple(self), astuple(earlier), strict=True)))


class Throughput(TrainerCallback):
    """Counts for one run. `peak`: FLOP/s of a device at most, None where unknown: no MFU then. `objective`: what it
    tells of steps, and what is read for it beside the batches (None: nothing)."""

    def __init__(self, *, peak: float | None = None, processes: int = 1, objective: Objective | None = None) -> None:
        self._peak, self._processes, self._objective = peak, processes, objective
        self._flops: dict[str, TokenFlops] = {}
        self.sums = StepSums()
        """What the objective tells of steps beside the loss."""
        if objective is not None:
            self.sums.derive = objective.derive
        self._restart()

    def _restart(self) -> None:
        self._began: float | None = None
        self._paused = self._waited = self._computed = 0.0
        self._pauses = 0
        self._computed_until: float | None = None
        self._work = np.asarray(_NOTHING[:-1])
        self.bad_media = BadMedia()
        self._steps = 0
        self._told = Totals()
        self.sums.clear()

    # ---- clocks ----

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """For data, unless the clock stands. The first time starts it."""
        begin = time.perf_counter()
        if self._began is None and not self._pauses:
            self._began = begin
        try:
            yield
        finally:
            if not self._pauses:
                self._waited += time.perf_counter() - begin

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Forward and backward of a micro-batch; what is waited for inside is not counted as computing."""
        begin, waited = time.perf_counter(), self._waited
        try:
            yield
        finally:
            self._computed_until = time.perf_counter()
            self._computed += self._computed_until - begin - (self._waited - waited)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The clock of training stands still: evaluation, a checkpoint. May be nested."""
        begin = time.perf_counter()
        self._pauses += 1
        try:
            yield
        finally:
            self._pauses -= 1
            if not self._pauses and self._began is not None:
                self._paused += time.perf_counter() - max(begin, self._began)

    def on_train_begin(self, *_arguments: Any, **_keywords: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()  # loading and the proof are no training
        self._restart()

    def on_step_end(self, *_arguments: Any, **_keywords: Any) -> None:
        """What lies between the last backward and here is the optimizer's."""
        self._steps += 1
        if self._computed_until is not None:
            self._computed += time.perf_counter() - self._computed_until
            self._computed_until = None

    # ---- counts ----

    def work_of(self, model: Any, batches: Sequence[Mapping[str, Any]]) -> Work:
        """What is in these batches, which lie in the memory of the processor. The first call looks at the model."""
        found = np.asarray(_NOTHING)
        for batch in batches:
            lengths, trained = sequence_lengths(batch), _trained(batch)
            bad = int(batch["bad_media"].sum()) if "bad_media" in batch else 0
            found += (lengths.sum(), trained, len(lengths), self._flops_of(model, batch), bad)
        return Work(*found.tolist())

    def _flops_of(self, model: Any, batch: Mapping[str, Any]) -> float:
        """Of the policy's forward and backward, and of what is read beside them without gradient."""
        found = self._measured("policy", lambda: measure_flops(model)).of(*_sizes(batch))
        if self._objective is None:
            return found
        others = self._objective.beside(batch)
        for other in others:
            forward = self._measured("policy, forward", lambda: measure_flops(model, backward=False))
            found += forward.of(*_sizes(other))
        compared = [one for one in (batch, *others) if "reference" not in one] if self._objective.compares else []
        for one in compared:
            reference = self._objective.reference
            assert isinstance(reference, Measured), "a reference that is asked is a model"
            found += self._measured("reference", reference.flops).of(*_sizes(one))
        return found

    def _measured(self, name: str, measure: Callable[[], TokenFlops]) -> TokenFlops:
        if name not in self._flops:
            with self.paused():
                self._flops[name] = measure()
        return self._flops[name]

    def add(self, work: Sequence[float]) -> None:
        """The work of a step, of all processes together."""
        *more, bad = work
        self._work = self._work + np.asarray(more)
        self.bad_media.count += int(bad)

    def totals(self) -> Totals:
        seconds = 0.0 if self._began is None else time.perf_counter() - self._began - self._paused
        return Totals(seconds, self._waited, self._computed, self._steps, *self._work.tolist())

    # ---- what is told ----

    def event(self, gather: Callable[[list[float]], np.ndarray]) -> dict[str, float]:
        """Figures for the steps since the last event. `gather`: numbers of this process -> [processes, numbers]."""
        now = self.totals()
        found = self._rates(now.since(self._told), gather)
        self._told = now
        return self.sums.event(gather) | found | self.bad_media.event()

    def closing(self, gather: Callable[[list[float]], np.ndarray]) -> dict[str, float]:
        """Figures for all steps since training began, as `train_results.json` names them."""
        now = self.totals()
        found = self._rates(now, gather)
        memory = found.pop("peak_memory_gib")
        found |= {"tokens": int(now.tokens), "trained_tokens": int(now.trained)}
        found["steps_per_second"] = _rate(now.steps, found["seconds"])
        if self.bad_media.count:
            found["bad_media"] = self.bad_media.count
        return {f"train_{name}": value for name, value in found.items()} | {"peak_memory_gib": memory}

    def _rates(self, part: Totals, gather: Callable[[list[float]], np.ndarray]) -> dict[str, float]:
        each = gather([part.seconds, part.waited, part.computed, peak_memory_gib()])
        part = Totals(*each[:, :3].mean(0).tolist(), *astuple(part)[3:])
        return {**rates(part, self._processes, self._peak), "peak_memory_gib": round(float(each[:, 3].max()), 3)}


def _sizes(batch: Mapping[str, Any]) -> tuple[np.ndarray, int, np.ndarray]:
    """What `TokenFlops.of` asks for."""
    return sequence_lengths(batch), _trained(batch), tokens_before(batch)


def _trained(batch: Mapping[str, Any]) -> int:
    return int((batch["labels"].numpy()[:, 1:] >= 0).sum())


def rates(part: Totals, processes: int, peak: float | None) -> dict[str, float]:
    """Figures of a part of training: what the log calls them, without memory."""
    seconds = part.seconds
    flops = part.flops / processes / seconds if seconds > 0 else 0.0
    found = {
        "seconds": round(seconds, 4),
        "tokens_per_second": _rate(part.tokens, seconds),
        "trained_tokens_per_second": _rate(part.trained, seconds),
        "samples_per_second": _rate(part.samples, seconds),
        "tflops_per_device": round(flops / 1e12, 6),
        "data_wait_seconds": round(part.waited, 4),
        "overhead_share": round(1 - part.computed / seconds, 5) if seconds > 0 else 0.0,
    }
    return found if peak is None else {**found, "mfu": round(flops / peak, 5)}


def _rate(amount: float, seconds: float) -> float:
    return round(amount / seconds, 3) if seconds > 0 else 0.0


def peak_memory_gib() -> float:
    """Largest memory so far in GiB: of the device on a GPU, of the process otherwise; 0 where the system does not tell
    (Windows)."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**30
    try:
        import resource
    except ImportError:  # there is none on Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
