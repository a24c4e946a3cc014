"""Cross-entropy sums against arithmetic written out by hand."""

from __future__ import annotations

import math

import torch

from tunesmith.losses.token import count_correct, cross_entropy_sum


def test_the_sum_is_minus_the_log_probability_of_each_target():
    # softmax of (0, ln 2, ln 5) is (1/8, 2/8, 5/8); of (0, 0, ln 2) is (1/4, 1/4, 2/4)
    logits = torch.tensor([[0.0, math.log(2), math.log(5)], [0.0, 0.0, math.log(2)]])
    found = cross_entropy_sum(logits, torch.tensor([1, 2]))
    torch.testing.assert_close(found, torch.tensor(math.log(8 / 2) + math.log(4 / 2)))


def test_no_trained_token_gives_a_zero_that_can_be_differentiated():
    logits = torch.zeros(0, 5, requires_grad=True)
    loss = cross_entropy_sum(logits, torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None


def test_half_precision_logits_are_summed_in_float32():
    logits = torch.randn(64, 100, generator=torch.Generator().manual_seed(0)).bfloat16()
    targets = torch.arange(64)
    assert cross_entropy_sum(logits, targets).dtype == torch.float32
    torch.testing.assert_close(cross_entropy_sum(logits, targets), cross_entropy_sum(logits.float(), targets))


def test_correct_guesses_are_counted():
    logits = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]])
    assert count_correct(logits, torch.tensor([1, 1, 1])).item() == 2.0


def test_a_weight_multiplies_the_loss_of_its_token():
    logits = torch.tensor([[0.0, math.log(2), math.log(5)], [0.0, 0.0, math.log(2)]])
    found = cross_entropy_sum(logits, torch.tensor([1, 2]), torch.tensor([3.0, 0.5]))
    torch.testing.assert_close(found, torch.tensor(3 * math.log(8 / 2) + 0.5 * math.log(4 / 2)))
    assert cross_entropy_sum(logits[:0], torch.tensor([], dtype=torch.long), torch.tensor([])).item() == 0.0
