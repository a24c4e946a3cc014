"""Pairs whose prompt stands in the row once, by types of models: log probabilities and gradient are those of the two
sequences of a pair, each alone with transformers' own attention and all logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.contracts.test_flat_batches import flat_model
from tests.pairs import token_pairs
from tunesmith.data.collate import FlatCollator, PaddingCollator
from tunesmith.losses.token import LogProbs
from tunesmith.models.families import FLAT
from tunesmith.models.family import family_of
from tunesmith.objectives.answers import answers_of
from tunesmith.objectives.inputs import model_inputs

SIZES = ((13, 7, 9), (3, 11, 2), (1, 4, 6))  # longer than a window and not, the prompt of one and of several
QUICK = ("llama", "qwen2", "gemma3_text", "gpt_oss", "deepseek_v3", "gpt2")
UPSTREAM = torch.tensor([1.0, -0.7, 0.4, 1.3, -2.0, 0.6], dtype=torch.float64)


def sums_and_gradient(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """The log probability of each answer [K], and the gradient of their weighted sum as one vector."""
    answers = answers_of(batch)
    model.zero_grad()
    if hasattr(model, "loss_forward"):
        found = model(**model_inputs(batch), **answers.asked, loss_kind=LogProbs(), use_cache=False)["log_probs"]
    else:
        logits = model(**model_inputs(batch), use_cache=False).logits.log_softmax(-1)
        found = logits[answers.positions[:, 0], answers.positions[:, 1], answers.targets]
    sums = answers.sums(found)
    (sums @ UPSTREAM).backward()
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in model.parameters()]
    return sums.detach(), torch.cat([gradient.flatten().double() for gradient in gradients])


def is_exact(model_type: str) -> bool:
    plain, quick, found = flat_model(model_type)
    assert found.flat, found.why
    samples = token_pairs(SIZES)
    wanted, gradient = sums_and_gradient(plain, PaddingCollator(0)(samples))
    batch = FlatCollator(0, shares=True)(samples)
    assert batch["input_ids"].shape[1] == sum(map(sum, SIZES)), "each prompt once"
    sums, other = sums_and_gradient(quick, batch)
    close = torch.allclose(sums, wanted, rtol=1e-5, atol=1e-5)
    return close and bool((gradient - other).norm() < 1e-4 * gradient.norm())


@pytest.mark.parametrize("model_type", QUICK)
def test_a_shared_prompt_is_two_sequences(model_type: str) -> None:
    assert family_of(model_type).shares
    assert is_exact(model_type)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the models' own code
@pytest.mark.parametrize("model_type", sorted(FLAT - set(QUICK)))
def test_every_type_that_shares_is_exact(model_type: str) -> None:
    assert family_of(model_type).shares
    assert is_exact(model_type)
