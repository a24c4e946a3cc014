"""Which micro-batch is the largest, what its states take, and what a processor's memory allows."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from tunesmith.checkpoints.chance import Chance
from tunesmith.models.checkpointing import enable_checkpointing
from tunesmith.models.out_of_memory import is_out_of_memory
from tunesmith.train import advice, probe
from tunesmith.train.advice import Facts, facts_of, optimizer_bytes, savings
from tunesmith.train.probe import Reached, beside_states, largest_rows
from tunesmith.train.sampler import BLANK, ORDERS, RankBatchSampler

CPU = torch.device("cpu")


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40),
    order=st.sampled_from(sorted(ORDERS)),
    batch=st.integers(1, 5),
    ranks=st.integers(1, 3),
    accumulation=st.integers(1, 3),
    steps=st.integers(1, 20),
    padded=st.booleans(),
)
def test_the_largest_micro_batch_of_a_run(
    lengths: list[int], order: str, batch: int, ranks: int, accumulation: int, steps: int, padded: bool
) -> None:
    """Against every micro-batch of the run, one by one."""

    def size(rows: list[int]) -> tuple[int, int]:
        own = [lengths[row] for row in rows if row != BLANK] or [0]
        return (len(own) * max(own) if padded else sum(own)), max(own)

    for rank in range(ranks):
        sampler = RankBatchSampler(
            lengths, batch, order=order, seed=5, rank=rank, world_size=ranks, step_rows=batch * accumulation * ranks
        )
        largest, made, epoch = (0, 0), 0, 0
        while made < steps:
            sampler.set_epoch(epoch)
            batches = list(sampler)
            for begin in range(0, len(batches), accumulation):
                if made < steps:
                    largest = max([largest, *map(size, batches[begin : begin + accumulation])])
                    made += 1
            epoch += 1
        found = largest_rows(sampler, lengths, Reached(0, steps, accumulation), padded=padded)
        assert size(found) == largest


def tiny(**settings: Any) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, **settings
        )
    )


@pytest.mark.parametrize("optim", ["AdamW", "Adafactor", "SGD", "RMSprop", "Adagrad"])
def test_states_of_an_optimizer_are_as_large_as_was_said(optim: str) -> None:
    """Against the states that one step makes. Adafactor's rows and columns are next to nothing."""
    model = tiny()
    optimizer = getattr(torch.optim, optim)(model.parameters(), **({"momentum": 0.9} if optim == "SGD" else {}))
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    states = [one for state in optimizer.state.values() for one in state.values() if torch.is_tensor(one)]
    found = sum(one.numel() * one.element_size() for one in states)
    said = optimizer_bytes(optim.lower(), model)
    weights = sum(weight.numel() * 4 for weight in model.parameters())
    assert said == pytest.approx(found, abs=0.2 * weights)


def test_advice_is_counted_from_the_models_shape() -> None:
    """100 tokens, H 16, I 24, L 2, float32: a layer keeps 4 * 100 * (8 * 16 + 3 * 24) = 80,000 bytes."""
    model = tiny()
    facts = facts_of(model, "adamw_torch", half=False)
    assert facts.layer(100) == 80_000
    assert facts.activations(100, recomputes=False) == 160_000
    assert facts.activations(100, recomputes=True) == 4 * 100 * 16 * 2 + 80_000
    weights = sum(one.numel() for one in model.parameters())
    assert (facts.trained_bytes, facts.frozen_bytes, facts.optimizer) == (4 * weights, 0, 8 * weights)
    found = dict(savings(facts, 100))
    assert found["cutoff_len: 50"] == 80_000
    assert found["disable_gradient_checkpointing: false"] == 160_000 - 92_800
    assert found["bf16: true"] == 80_000
    assert found["finetuning_type: lora"] == 12 * weights
    assert found["optim: adafactor"] == 8 * weights
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_advice_names_only_what_is_left() -> None:
    model = tiny()
    model.requires_grad_(False)
    model.lm_head.weight.requires_grad_(True)
    enable_checkpointing(model, "full", reentrant=False)
    found = dict(savings(facts_of(model, "adamw_torch", half=True), 100))
    assert set(found) <= {"cutoff_len: 50", "quantization_bit: 4"}


def test_states_that_do_not_fit_are_named() -> None:
    facts = Facts(16, 24, 2, 4, False, 10**9, 4 * 10**9, 0, 0, 8 * 10**9)
    text = str(advice.no_room_for_states(facts))
    assert "finetuning_type: lora (saves about 11.2 GiB); optim: adafactor (saves about 7.5 GiB)" in text


def test_nothing_is_left_of_gradients_and_chance() -> None:
    import random

    model = tiny()
    before = (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate())
    with beside_states(model, 1000, accumulates=True, device=CPU):
        assert all(float(weight.grad.sum()) == 0 for weight in model.parameters())
        torch.rand(2), np.random.rand(), random.random()
    assert all(weight.grad is None for weight in model.parameters())
    assert (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()) == before


def test_chance_goes_back() -> None:
    chance = Chance(CPU)
    drawn = torch.rand(3).tolist()
    chance.restore()
    assert torch.rand(3).tolist() == drawn


@pytest.mark.parametrize(("available", "warned"), [(10**12, False), (2**20, True)])
def test_scarce_main_memory_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, available: int, warned: bool
) -> None:
    """The micro-batch takes 1 GiB more than the process ever had, its states another."""
    told = iter([(2**30, 2**30), (2**30, 2**31)])
    monkeypatch.setattr(probe, "_own_memory", lambda: next(told))
    monkeypatch.setattr(probe, "available_memory", lambda: available)
    with caplog.at_level(logging.WARNING, "tunesmith"), beside_states(tiny(), 2**30, accumulates=False, device=CPU):
        pass
    assert ("a step takes about 2.0 GiB more" in caplog.text) == warned


def test_available_memory_is_that_of_the_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    most, used = tmp_path / "max", tmp_path / "current"
    monkeypatch.setattr(probe, "_CONTAINER", ((str(most), str(used)),))
    without = probe.available_memory()
    most.write_text("max\n")
    used.write_text("1000\n")
    assert (probe.available_memory() is None) == (without is None)
    most.write_text("5000\n")
    assert probe.available_memory() == 4000


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
            True,
        ),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GiB)"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) == expected
