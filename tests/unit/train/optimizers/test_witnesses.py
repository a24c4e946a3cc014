"""Our optimizers against those of pytorch-optimizer and schedulefree (make test-optimizers)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from tests.optimizer_runs import draws, stepped
from tunesmith.train.optimizers.galore import GaLore
from tunesmith.train.optimizers.lion import Lion
from tunesmith.train.optimizers.schedule_free import ScheduleFree, ScheduleFreeRadam, ScheduleFreeSgd
from tunesmith.train.optimizers.soap import Soap
from tunesmith.train.optimizers.stable_adamw import StableAdamW

pytestmark = [pytest.mark.usefixtures("torch_one_thread"), pytest.mark.needs_package("pytorch_optimizer")]
SETTINGS = {"lr": 0.05, "betas": (0.9, 0.95), "eps": 1e-8}
SHAPES = [(6, 6), (9, 5), (5, 9)]


@pytest.mark.parametrize("shape", SHAPES)
def test_lion(shape: tuple[int, int]) -> None:
    from pytorch_optimizer import Lion as Theirs

    settings = {"lr": 0.05, "betas": (0.9, 0.95), "weight_decay": 0.1}
    theirs = partial(Theirs, **settings, weight_decouple=True)
    grads = draws(*shape)
    torch.testing.assert_close(stepped(partial(Lion, **settings), grads), stepped(theirs, grads))


@pytest.mark.parametrize("shape", SHAPES)
def test_soap(shape: tuple[int, int]) -> None:
    from pytorch_optimizer import SOAP

    theirs = partial(SOAP, **SETTINGS, weight_decay=0.0, precondition_frequency=3, merge_dims=False)
    ours = partial(Soap, **SETTINGS, precondition_frequency=3)
    grads = draws(*shape, count=10)
    torch.testing.assert_close(stepped(ours, grads), stepped(theirs, grads), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_stable_adamw(shape: tuple[int, int]) -> None:
    from pytorch_optimizer import StableAdamW as Theirs

    theirs = partial(Theirs, **SETTINGS, weight_decay=0.1, kahan_sum=False)
    ours = partial(StableAdamW, **SETTINGS, weight_decay=0.1)
    grads = draws(*shape)
    torch.testing.assert_close(stepped(ours, grads), stepped(theirs, grads), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["std", "reverse_std", "left", "right", "full"])
@pytest.mark.parametrize("shape", SHAPES)
def test_galore_projects_as_theirs_does(shape: tuple[int, int], kind: str) -> None:
    from pytorch_optimizer.optimizer.galore import GaLoreProjector

    from tunesmith.train.optimizers.projection import singular_space

    theirs = GaLoreProjector(rank=3, update_proj_gap=10, scale=1.0, projection_type=kind)
    (grad,) = draws(*shape, count=1)
    low = theirs.project(grad.clone(), 1)
    space = singular_space(grad, kind, 3)
    torch.testing.assert_close(space.up(space.down(grad)), theirs.project_back(low), rtol=1e-3, atol=1e-4)
    assert space.down(grad).shape == low.shape


def test_galore_is_theirs() -> None:
    from pytorch_optimizer import GaLore as Theirs

    more = {"rank": 2, "update_proj_gap": 100, "scale": 0.5, "projection_type": "std"}
    theirs = lambda groups: Theirs([{**groups[0], **more}], **SETTINGS, weight_decay=0.0)  # noqa: E731
    inside = partial(torch.optim.AdamW, **SETTINGS, weight_decay=0.0)
    ours = partial(GaLore, make=inside, lr=0.05, rank=2, interval=100, scale=0.5, kind="std")
    grads = draws(9, 5)
    found = stepped(lambda groups: ours([{**groups[0], "projected": True}]), grads)
    torch.testing.assert_close(found, stepped(theirs, grads), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["AdamWScheduleFree", "SGDScheduleFree", "RAdamScheduleFree"])
def test_schedule_free(name: str) -> None:
    """Both what trains and what is judged, over a warm-up and after it."""
    import schedulefree

    pairs: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
        "AdamWScheduleFree": (ScheduleFree, SETTINGS),
        "SGDScheduleFree": (ScheduleFreeSgd, {"lr": 0.05, "momentum": 0.9}),
        "RAdamScheduleFree": (ScheduleFreeRadam, SETTINGS),
    }
    make, theirs_settings = pairs[name]
    ours, theirs = (Parameter(torch.ones(4, 3)) for _ in range(2))
    mine = make([{"params": [ours]}], **SETTINGS, weight_decay=0.1)
    other = getattr(schedulefree, name)([theirs], **theirs_settings, weight_decay=0.1, foreach=False)
    for step, grad in enumerate(draws(4, 3, count=60)):
        for optimizer, weight in ((mine, ours), (other, theirs)):
            optimizer.train()
            optimizer.param_groups[0]["lr"] = 0.05 * min(1.0, (step + 1) / 5)
            weight.grad = grad.clone()
            optimizer.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        if step % 20 == 19:
            for optimizer in (mine, other):
                optimizer.eval()
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
