"""Each optimizer against one that others have written, or against its paper's arithmetic on three numbers."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from tests.optimizer_runs import ADAM, draws, stepped
from tunesmith.train.optimizers.adam_mini import AdamMini
from tunesmith.train.optimizers.apollo import Apollo
from tunesmith.train.optimizers.badam import BAdam, BAdamRatio, block_at
from tunesmith.train.optimizers.galore import GaLore
from tunesmith.train.optimizers.lion import Lion
from tunesmith.train.optimizers.muon import Muon, orthogonal
from tunesmith.train.optimizers.projection import random_space, sides, singular_space
from tunesmith.train.optimizers.schedule_free import ScheduleFree, ScheduleFreeSgd
from tunesmith.train.optimizers.soap import Soap
from tunesmith.train.optimizers.stable_adamw import StableAdamW

pytestmark = pytest.mark.usefixtures("torch_one_thread")

DECAY = {**ADAM, "weight_decay": 0.1}
START = torch.tensor([[1.0, -2.0, 3.0]])
ROWS = [torch.tensor([[1.0, 2.0, -3.0]]), torch.tensor([[0.5, -1.0, 2.0]]), torch.tensor([[-4.0, 0.1, 1.0]])]
adamw = partial(torch.optim.AdamW, **DECAY)


def adam_by_hand(grads: list[Tensor], start: Tensor) -> Tensor:
    weight, m, v = start.double(), torch.zeros(()), torch.zeros(())
    for step, grad in enumerate(grads, 1):
        m, v = 0.9 * m + 0.1 * grad.double(), 0.99 * v + 0.01 * grad.double() ** 2
        direction = m / (1 - 0.9**step) / ((v / (1 - 0.99**step)).sqrt() + 1e-8)
        weight = weight * (1 - 0.1 * 0.1) - 0.1 * direction
    return weight.float()


# ---- what others have too ----


def test_what_is_not_projected_is_adamw() -> None:
    expected = stepped(adamw, ROWS, START)
    torch.testing.assert_close(adam_by_hand(ROWS, START), expected)
    settings = {"rank": 2, "interval": 2, "scale": 1.0, "kind": "std"}
    apollo = partial(Apollo, **DECAY, **settings, proj="svd", scale_type="channel", seed=0)
    for make in (apollo, partial(Muon, **DECAY), partial(GaLore, make=adamw, lr=0.1, weight_decay=0.1, **settings)):
        torch.testing.assert_close(stepped(make, ROWS, START), expected)


@pytest.mark.parametrize("shape", [(8, 8), (12, 5), (5, 12)])
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_is_that_of_torch(shape: tuple[int, int], nesterov: bool) -> None:
    settings = {"lr": 0.05, "weight_decay": 0.1, "momentum": 0.9, "nesterov": nesterov}
    theirs = partial(torch.optim.Muon, **settings, adjust_lr_fn="match_rms_adamw")
    ours = partial(Muon, **{**ADAM, **settings})

    def matrices(groups: list[dict[str, object]]) -> Muon:
        return ours([{**groups[0], "matrices": True}])

    grads = draws(*shape)
    torch.testing.assert_close(stepped(matrices, grads), stepped(theirs, grads), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("shape", [(16, 16), (24, 8), (8, 24)])
def test_orthogonal_is_near_to_that_of_a_decomposition(shape: tuple[int, int]) -> None:
    (matrix,) = draws(*shape, count=1)
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonal(matrix).float()
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.5
    assert values.max() < 1.3
    assert torch.cosine_similarity(found.flatten(), (u @ vh).flatten(), 0) > 0.97
    exact = u @ torch.diag(u.T @ found @ vh.T).diag() @ vh  # the singular vectors are those of the matrix
    torch.testing.assert_close(found, exact, atol=0.05, rtol=0)


def test_ratio_one_is_adamw() -> None:
    grads = draws(12, 12)
    make = partial(BAdamRatio, make=adamw, lr=0.1, ratio=1.0, mask="scatter", interval=-1, seed=0, weight_decay=0.1)
    torch.testing.assert_close(stepped(make, grads), stepped(adamw, grads))


# ---- by hand ----


def test_lion() -> None:
    # c = 0.9 m + 0.1 g, m = 0.99 m + 0.01 g: signs of c are those of g, but for -1 of the second step: 0.9*0.02-0.1 < 0
    # third: m = 0.99*(0.99*0.01, 0.02, -0.03) + 0.01*(0.5, -1, 2); c1 = 0.9*0.0148-0.4, c2 = 0.9*0.0098+0.01, c3 > 0
    signs = [[1, 1, -1], [1, -1, 1], [-1, 1, 1]]
    weight = START.clone()
    for sign in signs:
        weight = weight * (1 - 0.1 * 0.1) - 0.1 * torch.tensor([sign], dtype=torch.float32)
    make = partial(Lion, lr=0.1, betas=(0.9, 0.99), weight_decay=0.1)
    torch.testing.assert_close(stepped(make, ROWS, START), weight)


def test_adam_mini_shares_the_second_moment_of_a_block() -> None:
    grads = [torch.tensor([[3.0, 1.0], [0.0, 2.0], [4.0, 0.0], [0.0, 0.0]])]
    # after one step m / (1 - b1) = g, and v / (1 - b2) = mean of g^2 in the block
    for blocks, means in ((0, [5.0, 2.0, 8.0, 0.0]), (2, [3.5, 3.5, 4.0, 4.0]), (1, [3.75] * 4)):
        expected = -0.1 * grads[0] / (torch.tensor(means).sqrt()[:, None] + 1e-8)
        found = stepped(lambda groups, b=blocks: AdamMini([{**groups[0], "blocks": b}], **ADAM), grads)
        torch.testing.assert_close(found, expected)


def test_adam_mini_of_one_number_is_adamw() -> None:
    grads = [grad.T.contiguous() for grad in ROWS]
    make = partial(AdamMini, **DECAY)
    rows = stepped(lambda groups: make([{**groups[0], "blocks": 0}]), grads, START.T)
    torch.testing.assert_close(rows, stepped(adamw, grads, START.T))


def test_stable_adamw_divides_the_rate_by_the_surprise() -> None:
    # step 1: v = g^2, so the surprise is 1 and the step is the sign. step 2: b1 = (0.81-0.9)/(0.81-1), b2 likewise.
    grads = [torch.tensor([[1.0, -1.0]]), torch.tensor([[10.0, -10.0]])]
    beta1, beta2 = (0.81 - 0.9) / (0.81 - 1), (0.99**2 - 0.99) / (0.99**2 - 1)
    m, v = beta1 * 1 + (1 - beta1) * 10, beta2 * 1 + (1 - beta2) * 100
    surprise = 10 / math.sqrt(v)
    assert surprise > 1
    expected = -0.1 - 0.1 / surprise * m / math.sqrt(v)
    found = stepped(partial(StableAdamW, **ADAM), grads)
    torch.testing.assert_close(found, torch.tensor([[expected, -expected]]))


def test_stable_adamw_without_surprise_is_adamw() -> None:
    grads = [torch.tensor([[1.0, -2.0, 0.5]]) * size for size in (4, 3, 2, 1)]
    torch.testing.assert_close(stepped(partial(StableAdamW, **DECAY), grads, START), stepped(adamw, grads, START))


def test_schedule_free_sgd_is_the_mean_of_its_steps() -> None:
    """With beta = 0 gradients are taken at z, which is SGD; x is the mean of all z, the first point left out."""
    weight = Parameter(START.clone())
    settings = {"lr": 0.1, "betas": (0.5, 0.9), "eps": 0.0}
    optimizer = ScheduleFreeSgd([{"params": [weight]}], **settings)
    z, zs, ys = START.clone(), [], []
    x = z.clone()
    for step, grad in enumerate(ROWS, 1):
        optimizer.train()
        ys.append(weight.detach().clone())
        weight.grad = grad.clone()
        optimizer.step()
        torch.testing.assert_close(ys[-1], 0.5 * z + 0.5 * x)
        z = z - 0.1 * grad
        zs.append(z)
        x = sum(zs) / step
        optimizer.eval()
        torch.testing.assert_close(weight.detach(), x)
        before = weight.detach().clone()
        optimizer.eval()
        assert torch.equal(weight, before)


def test_what_is_looked_at_in_between_changes_no_bit() -> None:
    plain = stepped(partial(ScheduleFree, **DECAY), ROWS, START)
    weight = Parameter(START.clone())
    optimizer = ScheduleFree([{"params": [weight]}], **DECAY)
    for grad in ROWS:
        optimizer.train()
        weight.grad = grad.clone()
        optimizer.step()
        optimizer.eval()
    optimizer.train()
    assert torch.equal(weight, plain)


def test_soap_waits_a_step_and_is_adam_in_its_basis() -> None:
    """Gradients that are all multiples of a diagonal matrix: the basis is made of unit vectors, so SOAP is Adam."""
    grads = [torch.diag(torch.tensor([4.0, 2.0, 1.0])) * size for size in (1.0, 2.0, -1.0, 0.5)]
    found = stepped(partial(Soap, **DECAY, precondition_frequency=2), grads)
    torch.testing.assert_close(found, stepped(adamw, grads[1:]), rtol=1e-4, atol=1e-6)
    assert not stepped(partial(Soap, **DECAY), grads[:1]).any()


def test_soap_turned_is_soap() -> None:
    """Rotating all gradients rotates the steps, which Adam's do not."""
    grads = draws(6, 6)
    turn = torch.linalg.qr(draws(6, 6, count=1)[0] + torch.eye(6))[0]
    settings = {"lr": 0.1, "betas": (0.9, 0.9), "eps": 1e-12}
    make = partial(Soap, **settings, precondition_frequency=100)
    torch.testing.assert_close(
        turn @ stepped(make, grads), stepped(make, [turn @ one for one in grads]), rtol=1e-3, atol=1e-3
    )


# ---- projections ----


@pytest.mark.parametrize("shape", [(9, 5), (5, 9)])
@pytest.mark.parametrize("kind", ["std", "reverse_std", "left", "right", "full"])
def test_the_space_holds_the_largest_part_of_a_gradient(kind: str, shape: tuple[int, int]) -> None:
    (grad,) = draws(*shape, count=1)
    space = singular_space(grad, kind, 2)
    u, values, vh = torch.linalg.svd(grad, full_matrices=False)
    best = u[:, :2] @ torch.diag(values[:2]) @ vh[:2]
    torch.testing.assert_close(space.up(space.down(grad)), best, rtol=1e-4, atol=1e-4)
    left, right = sides(kind, grad.shape)
    assert space.down(grad).shape == (2 if left else shape[0], 2 if right else shape[1])
    if kind == "std":  # the longer dimension is kept
        assert max(space.down(grad).shape) == 9


@pytest.mark.parametrize("shape", [(6, 6), (4, 6), (6, 4)])
def test_galore_of_full_rank_is_the_optimizer_inside(shape: tuple[int, int]) -> None:
    """For one that does not mind rotations. Adam does, but a row has no others than a sign."""
    inside = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    settings = {"lr": 0.1, "interval": 100, "scale": 1.0, "kind": "std"}

    def galore(groups: list[dict[str, object]], rank: int = 6, make: object = inside) -> GaLore:
        return GaLore([{**groups[0], "projected": True}], make, rank=rank, **settings)  # type: ignore[arg-type]

    grads = draws(*shape)
    torch.testing.assert_close(stepped(galore, grads), stepped(inside, grads), rtol=1e-4, atol=1e-4)
    plain = partial(torch.optim.AdamW, lr=0.1, weight_decay=0.0)
    row = stepped(lambda groups: galore(groups, 1, plain), ROWS)
    torch.testing.assert_close(row, stepped(plain, ROWS))


def test_galore_by_hand() -> None:
    # G = 5 e1 e2^T: right vector e2 of the tall matrix, low = (5, 0, 0)^T up to a sign; Adam's first step is its sign.
    grad = torch.zeros(3, 2)
    grad[0, 1] = 5.0
    make = partial(torch.optim.AdamW, lr=0.1, weight_decay=0.0)
    settings = {"lr": 0.1, "rank": 1, "interval": 10, "scale": 0.25, "kind": "std", "weight_decay": 0.5}
    found = stepped(
        lambda groups: GaLore([{**groups[0], "projected": True}], make, **settings), [grad], torch.ones(3, 2)
    )
    expected = torch.full((3, 2), 1 - 0.1 * 0.5)
    expected[0, 1] -= 0.25 * 0.1
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("scale_type", ["channel", "tensor"])
def test_apollo_by_hand(scale_type: str) -> None:
    """Its first step: S = R / (|R| + eps) by element, so |S| = sqrt(n) of a channel with n elements."""
    (grad,) = draws(4, 3, count=1)
    settings = {"rank": 2, "interval": 5, "scale": 4.0, "proj": "svd", "kind": "std", "seed": 0}
    make = partial(Apollo, **ADAM, **settings, scale_type=scale_type)
    found = stepped(lambda groups: make([{**groups[0], "projected": True}]), [grad])
    low = singular_space(grad, "std", 2).down(grad)  # [4, 2]
    if scale_type == "tensor":
        factor = math.sqrt(8) / low.norm()
    else:
        factor = math.sqrt(2) / low.norm(dim=1, keepdim=True)
    torch.testing.assert_close(found, -0.1 * grad * factor * math.sqrt(4.0), rtol=1e-4, atol=1e-6)


def test_apollo_limits_how_fast_the_norm_grows() -> None:
    """The same gradient, after a far smaller one: the step of the second would be larger by more than 1%."""
    small, large = torch.full((3, 2), 1e-3), torch.eye(3, 2) * 100
    settings = {"rank": 1, "interval": 5, "scale": 1.0, "proj": "random", "kind": "std", "seed": 0}
    make = partial(Apollo, lr=1.0, betas=(0.0, 0.0), eps=1e-12, **settings, scale_type="tensor")
    weights = [
        stepped(lambda groups: make([{**groups[0], "projected": True}]), grads)
        for grads in ([small], [small, small * 1.0], [small, large])
    ]
    first = weights[0].norm()
    torch.testing.assert_close((weights[1] - weights[0]).norm(), first)
    assert (weights[2] - weights[0]).norm() <= first * 1.0100001


def test_a_random_space_keeps_lengths_in_the_mean_and_follows_from_its_numbers() -> None:
    from tunesmith.train.optimizers.base import generator

    (grad,) = draws(64, 40, count=1)
    cpu = torch.device("cpu")
    lows = [random_space(grad.shape, "std", 8, generator(cpu, 1, n, 0), cpu).down(grad) for n in range(50)]
    mean = torch.stack([low.square().sum() for low in lows]).mean()
    assert mean == pytest.approx(grad.square().sum().item(), rel=0.05)
    again = random_space(grad.shape, "std", 8, generator(cpu, 1, 3, 0), cpu).down(grad)
    assert torch.equal(again, lows[3])
    assert not torch.equal(lows[2], lows[3])


# ---- blocks ----


@pytest.mark.parametrize(
    ("mode", "start", "interval", "expected"),
    [
        ("ascending", None, 2, [0, 0, 1, 1, 2, 2, 0, 0]),
        ("ascending", 1, 2, [1, 1, 2, 2, 0, 0, 1, 1]),
        ("descending", None, 1, [2, 1, 0, 2, 1, 0, 2, 1]),
        ("descending", 0, 2, [0, 0, 2, 2, 1, 1, 0, 0]),
        ("fixed", 1, 2, [1] * 8),
        ("ascending", None, -1, [0] * 8),
    ],
)
def test_the_order_of_blocks(mode: str, start: int | None, interval: int, expected: list[int]) -> None:
    assert [block_at(step, 3, mode, interval, start, seed=0) for step in range(8)] == expected


def test_a_random_order_has_each_block_once_in_a_round() -> None:
    rounds = [[block_at(5 * turn + place, 5, "random", 1, 2, seed=9) for place in range(5)] for turn in range(20)]
    assert all(sorted(one) == [0, 1, 2, 3, 4] for one in rounds)
    assert rounds[0][0] == 2
    assert len({tuple(one) for one in rounds}) > 10


def test_a_block_in_half_precision_is_stepped_in_float32() -> None:
    """Steps too small for bfloat16 add up in the copy."""
    weight = Parameter(torch.ones(4, dtype=torch.bfloat16))
    make = partial(torch.optim.SGD, lr=1e-3)
    settings = {"blocks": ["a"], "mode": "fixed", "interval": -1, "start": None, "seed": 0}
    optimizer = BAdam([{"params": [weight], "block": 0}], make, lr=1e-3, **settings)
    for _ in range(20):
        weight.grad = torch.ones(4, dtype=torch.bfloat16)
        optimizer.step()
    torch.testing.assert_close(weight.float(), torch.full((4,), 0.98), atol=4e-3, rtol=0)
    assert not torch.equal(weight, torch.ones(4, dtype=torch.bfloat16))
    plain = Parameter(torch.ones(4, dtype=torch.bfloat16))
    plain.grad = torch.ones(4, dtype=torch.bfloat16)
    for _ in range(20):
        torch.optim.SGD([plain], lr=1e-3).step()
    assert torch.equal(plain, torch.ones(4, dtype=torch.bfloat16)), "which it would not without"
