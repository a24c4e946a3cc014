"""What is counted while a run trains, on a clock of the test."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.pairs import token_answers, token_pairs
from tunesmith.config.objective import ObjectiveConfig
from tunesmith.data.collate import FlatCollator, PaddingCollator, sequence_lengths, tokens_before
from tunesmith.models.flops import TokenFlops
from tunesmith.objectives import OBJECTIVES
from tunesmith.train import throughput
from tunesmith.train.throughput import Throughput, Totals, Work, rates

FLOPS = TokenFlops(layers=100.0, head=7.0, attention={None: 2.0, 3: 1.0}, head_everywhere=False)


class Clock:
    """`time` with hands that the test moves."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    return clock


def alone(numbers: list[float]) -> np.ndarray:
    return np.asarray([numbers])


def step(counts: Throughput, clock: Clock, *, loader: float, copy: float, compute: float, optimizer: float) -> None:
    with counts.waiting():
        clock.passes(loader)
    clock.passes(0.5)  # counting, callbacks
    with counts.computing():
        with counts.waiting():
            clock.passes(copy)
        clock.passes(compute)
    clock.passes(optimizer)
    counts.on_step_end()
    counts.add(Work(1000, 400, 8, 6e12))


def test_time_is_told_apart(clock: Clock) -> None:
    counts = Throughput(peak=2e12)
    step(counts, clock, loader=1.0, copy=0.5, compute=6.0, optimizer=2.0)
    found = counts.event(alone)
    assert found["seconds"] == 10.0
    assert found["data_wait_seconds"] == 1.5
    assert found["overhead_share"] == 0.2  # of ten seconds, six are forward and backward, two the optimizer's
    assert (found["tokens_per_second"], found["trained_tokens_per_second"]) == (100, 40)
    assert found["samples_per_second"] == 0.8
    assert found["tflops_per_device"] == 0.6
    assert found["mfu"] == 0.3
    assert found["peak_memory_gib"] > 0


def test_the_clock_stands_in_evaluation_and_while_saving(clock: Clock) -> None:
    counts = Throughput()
    with counts.paused(), counts.waiting():  # evaluation before the first step
        clock.passes(50.0)
    step(counts, clock, loader=1.0, copy=0.5, compute=6.0, optimizer=2.0)
    counts.event(alone)
    with counts.paused():
        clock.passes(30.0)
        with counts.paused(), counts.waiting():
            clock.passes(30.0)
    step(counts, clock, loader=0.0, copy=0.0, compute=4.0, optimizer=0.5)
    found = counts.event(alone)
    assert (found["seconds"], found["data_wait_seconds"]) == (5.0, 0.0)
    assert found["tokens_per_second"] == 200
    assert "mfu" not in found
    closing = counts.closing(alone)
    assert closing["train_seconds"] == 15.0
    assert closing["train_tokens"] == 2000
    assert closing["train_trained_tokens"] == 800
    assert closing["train_steps_per_second"] == pytest.approx(2 / 15, abs=1e-3)
    assert closing["train_overhead_share"] == pytest.approx(2.5 / 15, abs=1e-5)


def test_a_session_begins_at_nothing(clock: Clock) -> None:
    counts = Throughput()
    step(counts, clock, loader=1.0, copy=0.0, compute=6.0, optimizer=2.0)
    counts.on_train_begin()
    assert counts.totals() == Totals()
    assert counts.closing(alone)["train_tokens_per_second"] == 0.0


def test_sums_are_of_all_processes_and_time_is_their_mean(clock: Clock) -> None:
    counts = Throughput(peak=1e12, processes=2)
    step(counts, clock, loader=1.0, copy=0.5, compute=6.0, optimizer=2.0)

    def with_another(numbers: list[float]) -> np.ndarray:
        seconds, waited, computed, memory = numbers
        return np.asarray([numbers, [seconds, waited + 1, computed - 1, memory + 1]])

    found = counts.event(with_another)
    assert found["data_wait_seconds"] == 2.0
    assert found["overhead_share"] == 0.25
    assert found["tokens_per_second"] == 100  # what is added is of all processes already
    assert found["tflops_per_device"] == 0.3
    assert found["mfu"] == 0.3
    assert found["peak_memory_gib"] == pytest.approx(throughput.peak_memory_gib() + 1, abs=0.1)


def test_no_time_is_no_rate() -> None:
    assert set(rates(Totals(tokens=5.0), 1, 1e12).values()) == {0.0}


def rows(lengths: list[int]) -> list[dict[str, np.ndarray]]:
    return [{"input_ids": np.arange(size), "trained": np.arange(size) >= 2} for size in lengths]


@pytest.mark.parametrize("collate", [FlatCollator(0), PaddingCollator(0), FlatCollator(0, one_row=False)])
def test_padding_is_no_work(collate: Any) -> None:
    counts = Throughput()
    counts._flops = {"policy": FLOPS}
    found = counts.work_of(None, [collate(rows([5, 3])), collate(rows([2, 6]))])
    pairs = 15 + 6 + 3 + 21, (6 + 2 * 3) + 6 + 3 + (6 + 3 * 3)  # all before; the last three
    trained = 3 + 1 + 0 + 4
    assert found == Work(16, trained, 4, 100 * 16 + 7 * trained + 2 * pairs[0] + pairs[1])


class Compared:
    """A reference that tells what it costs."""

    def __call__(self, model: Any, inputs: Any, answers: Any) -> torch.Tensor:
        raise AssertionError("nobody asks")

    def flops(self) -> TokenFlops:
        return TokenFlops(layers=1e6, head=0.0, attention={}, head_everywhere=False)


@pytest.mark.parametrize(
    ("stage", "keys", "passes"),
    [
        ("sft", {}, (0, 0)),
        ("dpo", {}, (0, 1)),
        ("dpo", {"pref_loss": ("aot",)}, (0, 1)),  # what is looked at is computed a second time
        ("dpo", {"pref_loss": ("simpo",)}, (0, 0)),
        ("kto", {}, (1, 2)),
        ("kto", {"kto_loss": "bco"}, (0, 1)),
        ("rm", {}, (0, 0)),
    ],
)
def test_what_is_read_beside_a_batch_is_work(stage: str, keys: dict[str, Any], passes: tuple[int, int]) -> None:
    """Forwards of the policy and of the reference; of answers to other prompts both."""
    objective = OBJECTIVES.get(stage)(ObjectiveConfig(stage=stage, **keys))
    if objective.compares:
        objective.reference = Compared()
    counts = Throughput(objective=objective)
    forward = TokenFlops(layers=1e3, head=0.0, attention={}, head_everywhere=False)
    counts._flops = {"policy": FLOPS, "policy, forward": forward}
    samples = token_answers() if stage == "kto" else token_pairs()
    batch = FlatCollator(0, shares=stage != "kto")(samples)
    own = FLOPS.of(sequence_lengths(batch), 23 if stage == "kto" else 45, tokens_before(batch))
    others = sum(len(sample["mismatched_input_ids"]) for sample in samples) if stage == "kto" else 0
    tokens = int(batch["lengths"].sum())
    expected = own + passes[0] * others * 1e3 + (tokens * min(passes[1], 1) + others * max(passes[1] - 1, 0)) * 1e6
    assert counts.work_of(None, [batch]).flops == expected
    if objective.compares:
        known = {**batch, "reference": torch.zeros(8)}
        assert counts.work_of(None, [known]).flops == expected - tokens * 1e6, "computed ahead"


def test_counting_asks_no_tensor_library_and_no_device() -> None:
    """Nothing that is counted or timed runs an operation of torch, so nothing can wait for a device."""
    seen: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
            seen.append(str(function))
            return function(*arguments, **(keywords or {}))

    counts = Throughput(peak=1e12)
    counts._flops = {"policy": FLOPS}
    batches = [FlatCollator(0)(rows([5, 3])), PaddingCollator(0)(rows([2, 6]))]
    with Watch():
        assert torch.zeros(1).sum() == 0
        expected, before = list(seen), len(seen)
        with counts.waiting(), counts.computing():
            pass
        work = counts.work_of(None, batches)
        counts.add(work)
        counts.on_step_end()
        with counts.paused():
            pass
        counts.event(alone)
        counts.closing(alone)
    assert expected, "the watch sees operations"
    # The labels from the second token on: a view, which moves nothing.
    assert set(seen[before:]) <= {"aten.alias.default", "aten.slice.Tensor", "aten.detach.default"}


def test_the_model_is_looked_at_once_and_off_the_clock(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Any] = []

    def look(model: Any) -> TokenFlops:
        looks.append(model)
        clock.passes(7.0)
        return FLOPS

    monkeypatch.setattr(throughput, "measure_flops", look)
    counts, model = Throughput(), SimpleNamespace()
    with counts.waiting():
        clock.passes(1.0)
    for _ in range(2):
        counts.work_of(model, [FlatCollator(0)(rows([4]))])
    assert looks == [model]
    assert counts.totals().seconds == 1.0


def test_a_system_that_tells_no_memory_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has no module `resource`."""
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert throughput.peak_memory_gib() == 0.0
