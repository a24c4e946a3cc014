"""Losses of tokens: by hand, and against what others compute on whole logits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.token_losses import CASES
from tunesmith.losses.linear_cross_entropy import Head, linear_cross_entropy
from tunesmith.losses.token import CROSS_ENTROPY, TokenLoss, TokenStatistics, dft, eaft, of_logits, top_entropy


def test_the_sum_is_minus_the_log_probability_of_each_target() -> None:
    # softmax of (0, ln 2, ln 5) is (1/8, 2/8, 5/8); of (0, 0, ln 2) is (1/4, 1/4, 2/4)
    logits = torch.tensor([[0.0, math.log(2), math.log(5)], [0.0, 0.0, math.log(2)]])
    loss, told = of_logits(logits, torch.tensor([1, 2]), None, CROSS_ENTROPY)
    torch.testing.assert_close(loss, torch.tensor(math.log(8 / 2) + math.log(4 / 2)))
    torch.testing.assert_close(told.log_probs, torch.tensor([-math.log(8 / 2), -math.log(4 / 2)]))
    assert told.correct.tolist() == [False, True]
    weighted, _ = of_logits(logits, torch.tensor([1, 2]), torch.tensor([3.0, 0.5]), CROSS_ENTROPY)
    torch.testing.assert_close(weighted, torch.tensor(3 * math.log(8 / 2) + 0.5 * math.log(4 / 2)))


def test_three_numbers_by_hand() -> None:
    """Probabilities 1/8, 2/8, 5/8 and the second is the target; all three are the likeliest."""
    logits = torch.tensor([[0.0, math.log(2), math.log(5)]])
    target = torch.tensor([1])
    entropy = -(math.log(1 / 8) / 8 + math.log(2 / 8) * 2 / 8 + math.log(5 / 8) * 5 / 8)
    expected = {
        dft(): math.log(4) / 4,
        eaft(1.0): math.log(4) * entropy / 3,
        eaft(0.5): math.log(4) * math.sqrt(entropy / 3),
        TokenLoss(0.3): 0.7 * math.log(4) + 0.3 * (math.log(8) + math.log(4) + math.log(8 / 5)) / 3,
    }
    for how, value in expected.items():
        assert of_logits(logits, target, None, how)[0].item() == pytest.approx(value, rel=1e-6)


def test_the_likeliest_tokens_are_looked_at_by_themselves() -> None:
    # 2/10, 3/10, 4/10, 1/10: of the two likeliest 3/7 and 4/7
    logits = torch.tensor([[2.0, 3.0, 4.0, 1.0]]).log()
    expected = -(3 / 7 * math.log(3 / 7) + 4 / 7 * math.log(4 / 7))
    assert top_entropy(logits, 2).item() == pytest.approx(expected, rel=1e-6)


def test_a_model_that_does_not_waver_has_no_entropy() -> None:
    """And its power is no NaN, also below 1."""
    logits = torch.zeros(1, 50)
    logits[0, 7] = 1e4
    loss, told = of_logits(logits, torch.tensor([3]), None, eaft(0.3))
    assert (told.top_entropy.tolist(), loss.item()) == ([0.0], 0.0)  # type: ignore[union-attr]


def test_no_trained_token_gives_a_zero_that_can_be_differentiated() -> None:
    logits = torch.zeros(0, 5, requires_grad=True)
    loss, told = of_logits(logits, torch.zeros(0, dtype=torch.long), None, eaft(1.0))
    loss.backward()
    assert (loss.item(), len(told.log_probs)) == (0.0, 0)
    assert logits.grad is not None


def test_half_precision_logits_are_summed_in_float32() -> None:
    logits = torch.randn(64, 100, generator=torch.Generator().manual_seed(0)).bfloat16()
    targets = torch.arange(64)
    for how in (CROSS_ENTROPY, dft(), eaft(1.0), TokenLoss(0.1)):
        half, whole = of_logits(logits, targets, None, how)[0], of_logits(logits.float(), targets, None, how)[0]
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, whole)


def test_the_parts_of_statistics_are_joined() -> None:
    parts = [TokenStatistics(torch.zeros(n), torch.ones(n).bool(), top_entropy=torch.ones(n)) for n in (2, 0, 3)]
    joined = TokenStatistics.joined(parts)
    assert joined.entropy is None
    assert joined.top_entropy is not None
    assert len(joined.log_probs) == len(joined.correct) == len(joined.top_entropy) == 5


# ---- as others compute them, on logits [B, T, V] with labels that are not shifted ----


def batch() -> tuple[Tensor, Tensor]:
    """logits [3, 11, 83] that are sure of themselves at some places, labels with nothing trained at others."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(3, 11, 83, generator=generator) * torch.linspace(0.1, 6, 11)[:, None]
    labels = torch.randint(83, (3, 11), generator=generator)
    labels[torch.rand(3, 11, generator=generator) < 0.4] = -100
    labels[:, 0] = -100
    return logits.requires_grad_(), labels


def assert_same(one: Tensor, other: Tensor, logits: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-6, atol=0)
    found, wanted = (torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (one, other))
    assert (found - wanted).norm() < 1e-6 * wanted.norm()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", ["logits", "chunks"])
def test_value_and_gradient_are_those_of_the_formulas(case: str, way: str) -> None:
    logits, labels = batch()
    trained = labels[:, 1:] != -100
    shown, targets = logits[:, :-1][trained], labels[:, 1:][trained]
    weights = torch.linspace(0, 2, len(targets))
    if way == "logits":
        loss, told = of_logits(shown, targets, weights, CASES[case].ours)
    else:  # an output layer that changes nothing
        loss, told = linear_cross_entropy(
            shown, Head(torch.eye(83)), targets, weights=weights, how=CASES[case].ours, rows=4
        )
    assert_same(loss, (CASES[case].each(shown, targets) * weights).sum(), logits)
    torch.testing.assert_close(told.log_probs, -CASES["plain"].each(shown, targets).detach(), rtol=1e-5, atol=1e-5)


def test_smoothing_is_that_of_transformers() -> None:
    """Its mean over the trained tokens of a batch is our sum over them by their number."""
    from transformers.trainer_pt_utils import LabelSmoother

    logits, labels = batch()
    trained = labels[:, 1:] != -100
    loss, _ = of_logits(logits[:, :-1][trained], labels[:, 1:][trained], None, TokenLoss(0.15))
    expected = LabelSmoother(0.15)({"logits": logits}, labels, shift_labels=True)
    assert_same(loss / trained.sum(), expected, logits)
