"""Steps in the backward pass: one gradient at a time, the groups' own settings, and no half steps."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from tunesmith.config import load_config
from tunesmith.core.errors import UsageError
from tunesmith.train.optimizer_in_backward import StepInBackward
from tunesmith.train.plan import resolve_plan

pytestmark = pytest.mark.usefixtures("torch_one_thread")


def layers() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(4)))


def test_no_two_gradients_are_held_at_once() -> None:
    model, held = layers(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    StepInBackward(optimizer)

    def look(_grad: torch.Tensor) -> None:
        held.append(sum(one.grad is not None for one in model.parameters()))

    for weight in model.parameters():
        weight.register_hook(look)  # before its own gradient is kept
    model(torch.ones(2, 8)).sum().backward()
    assert held == [0] * 8
    assert all(one.grad is None for one in model.parameters())


def test_groups_keep_their_settings_and_the_schedule_reaches_them() -> None:
    one, other = layers(), layers()
    optimizers = []
    for model in (one, other):
        groups = [
            {"params": model[:2].parameters(), "lr": 0.1},
            {"params": model[2:].parameters(), "weight_decay": 0.5},
        ]
        optimizers.append(torch.optim.AdamW(groups, lr=0.01))
    schedules = [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5) for optimizer in optimizers]
    within = StepInBackward(optimizers[1])
    for step in range(4):
        if step == 2:  # what a checkpoint holds is taken up again
            optimizers[1].load_state_dict(copy.deepcopy(optimizers[1].state_dict()))
        for model, optimizer, schedule in zip((one, other), optimizers, schedules, strict=True):
            model(torch.full((2, 8), float(step))).square().sum().backward()
            optimizer.step()
            schedule.step()
        norm = torch.nn.utils.get_total_norm([weight.grad for weight in one.parameters()])
        torch.testing.assert_close(within.take_norm(), norm, rtol=1e-6, atol=0)
        one.zero_grad()
    for weight, same in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(weight, same)
    assert within.take_norm() == 0


def test_a_gradient_in_parts_is_an_error_and_in_one_piece_is_none() -> None:
    for reentrant in (True, False):
        layer = torch.nn.Linear(8, 8)
        StepInBackward(torch.optim.SGD(layer.parameters(), lr=0.1))
        hidden = torch.ones(2, 8, requires_grad=True)
        twice = checkpoint(layer, checkpoint(layer, hidden, use_reentrant=reentrant), use_reentrant=reentrant)
        if reentrant:
            with pytest.raises(UsageError, match="E-TRAIN-040"):
                twice.sum().backward()
        else:
            twice.sum().backward()


def test_several_processes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"model_name_or_path": "m", "dataset": "d", "output_dir": str(tmp_path), "use_cpu": True}
    config = load_config({**keys, "optimizer_in_bwd": True, "max_grad_norm": 0})
    resolve_plan(config)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="E-TRAIN-041"):
        resolve_plan(config)
