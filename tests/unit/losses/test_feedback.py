"""Losses of single answers, of rewards, of tokens near a reference, and the sums that they read: by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from tunesmith.losses.asft import Anchor, divergence_into, reference_divergence
from tunesmith.losses.completions import tail_weights
from tunesmith.losses.feedback import FEEDBACK_LOSSES, FeedbackScores, FeedbackSettings, divergence, feedback_loss
from tunesmith.losses.reward import bradley_terry
from tunesmith.losses.token import TokenStatistics, dft, of_logits

LN2, LN3 = math.log(2), math.log(3)


def answers(ratios: list[float], liked: list[bool], length: float = 1.0) -> FeedbackScores:
    policy = torch.tensor(ratios, dtype=torch.float64).requires_grad_()
    return FeedbackScores(
        policy, torch.zeros_like(policy), torch.full_like(policy, length), torch.tensor(liked, dtype=torch.bool)
    )


def test_bco_by_hand() -> None:
    """b u - d = ln 3 for the liked answer, -ln 3 for the other: s is 3/4 for both. Weights 2 and 3."""
    of = answers([2 * LN3, 0.0], [True, False])
    loss = feedback_loss("bco", of, FeedbackSettings(1.0, 2.0, 3.0), LN3)
    torch.testing.assert_close(loss, torch.tensor([2.0, 3.0], dtype=torch.float64) * math.log(4 / 3))
    loss.sum().backward()
    torch.testing.assert_close(of.policy.grad, torch.tensor([-2 / 4, 3 / 4], dtype=torch.float64))


def test_bco_one_by_one() -> None:
    draw = torch.Generator().manual_seed(3)
    ratios = (torch.randn(9, dtype=torch.float64, generator=draw) * 8).tolist()
    liked = [number % 3 == 0 for number in range(9)]
    signs = [1 if one else -1 for one in liked]
    expected = [math.log1p(math.exp(-sign * (0.3 * u - 0.7))) for sign, u in zip(signs, ratios, strict=True)]
    found = feedback_loss("bco", answers(ratios, liked), FeedbackSettings(0.3), 0.7)
    torch.testing.assert_close(found.detach(), torch.tensor(expected, dtype=torch.float64))


def test_kto_by_hand() -> None:
    """K = ln 3 nats: b (u - K) is ln 3 for the liked and -ln 3 for the other; 1 - s is 1/4 for both."""
    found = feedback_loss("kto", answers([3 * LN3, -LN3], [True, False], 4.0), FeedbackSettings(0.5, ftx=0.1), LN3)
    # ftx: 0.1 * -u / 4 of the liked answer
    expected = torch.tensor([1 / 4 - 0.1 * 3 * LN3 / 4, 1 / 4], dtype=torch.float64)
    torch.testing.assert_close(found.detach(), expected)


def test_the_divergence_is_not_below_zero() -> None:
    assert divergence(torch.tensor(6.0), 4).item() == 1.5
    assert divergence(torch.tensor(-6.0), 4).item() == 0.0


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_losses_of_answers_add_up_over_any_split(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 8))
    ratios = data.draw(st.lists(st.floats(-40, 40), min_size=count, max_size=count))
    liked = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    cut = data.draw(st.integers(0, count))
    to = FeedbackSettings(0.2, 1.5, 0.5, 0.1)
    for name in FEEDBACK_LOSSES:
        whole = answers(ratios, liked)
        feedback_loss(name, whole, to, 0.3).sum().backward()
        parts = [answers(ratios[part], liked[part]) for part in (slice(cut), slice(cut, None))]
        for part in parts:
            feedback_loss(name, part, to, 0.3).sum().backward()
        torch.testing.assert_close(torch.cat([_gradient(part) for part in parts]), _gradient(whole), msg=name)


def _gradient(of: FeedbackScores) -> Tensor:
    assert of.policy.grad is not None
    return of.policy.grad


@pytest.mark.parametrize("name", FEEDBACK_LOSSES)
def test_extreme_answers_have_finite_gradients(name: str) -> None:
    of = answers([1e4, -1e4, 1e4, -1e4], [True, True, False, False])
    feedback_loss(name, of, FeedbackSettings()).sum().backward()
    assert _gradient(of).isfinite().all()


def test_bradley_terry_by_hand() -> None:
    """In half precision the difference is that of the numbers, not a rounded one."""
    chosen, rejected = torch.tensor([3.0, 256.0]).bfloat16(), torch.tensor([1.0, 0.5]).bfloat16()
    found = bradley_terry(chosen, rejected, torch.tensor([2 - LN3, 255.5]), 0.01)
    expected = [math.log(4 / 3) + 0.01 * 16, LN2 + 0.01 * 256.5**2]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_tails_of_answers() -> None:
    lengths, shared = torch.tensor([3, 0, 2]), torch.tensor([1, 0, 2])
    assert tail_weights(lengths, shared, 0.25).tolist() == [1, 0.25, 0.25, 1, 1]


def asft(
    logits: Tensor, reference: Tensor, targets: Tensor, weights: Tensor | None, alpha: float
) -> tuple[Tensor, TokenStatistics]:
    return of_logits(logits, targets, weights, replace(dft(), anchor=Anchor(alpha, lambda part: reference[part])))


def test_asft_is_dft_and_a_divergence() -> None:
    """The divergence is a cross-entropy less an entropy, here in float64, and its gradient is p - q."""
    draw = torch.Generator().manual_seed(4)
    logits, reference = torch.randn(2, 6, 13, generator=draw).unbind()
    targets, weights = torch.randint(13, (6,), generator=draw), torch.rand(6, generator=draw)
    logits.requires_grad_()
    loss, told = asft(logits, reference, targets, weights, 0.3)
    assert told.divergence is not None
    apart = told.divergence
    p, q = logits.detach().double().softmax(-1), reference.double().softmax(-1)
    expected = cross_entropy(logits.detach().double(), q, reduction="none") + (q * q.log()).sum(-1)
    torch.testing.assert_close(apart.double(), expected, rtol=1e-5, atol=1e-6)
    fitted, _ = of_logits(logits, targets, weights, dft())
    torch.testing.assert_close(loss, fitted + 0.3 * (weights * expected.float()).sum())
    [found] = torch.autograd.grad(loss - fitted, logits)
    torch.testing.assert_close(found.double(), 0.3 * weights[:, None].double() * (p - q), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(told.log_probs, logits.detach().log_softmax(-1).gather(1, targets[:, None])[:, 0])


def test_asft_may_come_in_parts() -> None:
    logits, reference = torch.randn(2, 5, 9, generator=torch.Generator().manual_seed(6)).unbind()
    targets = torch.tensor([1, 2, 3, 4, 5])
    whole = asft(logits, reference, targets, None, 0.2)[0]
    parts = [asft(logits[part], reference[part], targets[part], None, 0.2)[0] for part in (slice(2), slice(2, 5))]
    torch.testing.assert_close(torch.stack(parts).sum(), whole)
    assert reference_divergence(logits, logits).abs().max() < 1e-6
    torch.testing.assert_close(divergence_into(logits, reference.clone()), reference_divergence(logits, reference))
