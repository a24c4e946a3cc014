"""The load-balancing loss by arithmetic."""

from __future__ import annotations

import math

import pytest
import torch

from tunesmith.losses.load_balance import load_balance


def test_three_tokens_two_experts() -> None:
    """Probabilities 3/4 and 1/4, 3/4 and 1/4, 1/2 and 1/2 (the first is taken): f = (1, 0), P = (2/3, 1/3),
    loss = 2 * (1 * 2/3 + 0 * 1/3)."""
    logits = torch.tensor([[math.log(3.0), 0.0], [math.log(3.0), 0.0], [0.0, 0.0]], requires_grad=True)
    found = load_balance([logits], 1)
    assert float(found.detach()) == pytest.approx(4 / 3)
    found.backward()
    assert logits.grad is not None
    assert float(logits.grad[0, 0]) == pytest.approx(2 * (3 / 4) * (1 / 4) / 3)  # of the softmax, a third of the mean


def test_padding_does_not_count() -> None:
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    real = torch.cat([logits[:3], logits[3:4]])
    assert torch.allclose(load_balance([logits, logits * 2], 2, mask), load_balance([real, real * 2], 2))
    assert float(load_balance([logits], 2, torch.zeros(2, 3))) == 0.0


def test_an_even_load_gives_the_number_of_choices() -> None:
    assert float(load_balance([torch.eye(4) * 1e-4], 1)) == pytest.approx(1.0, abs=1e-3)
    assert float(load_balance([torch.randn(5, 4)], 4)) == pytest.approx(4.0)
