"""The loss of supervised fine-tuning: weights of tokens, and sequences that share a row."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tunesmith.config.objective import ObjectiveConfig
from tunesmith.core.types import Encoded
from tunesmith.data.collate import FlatCollator, PaddingCollator
from tunesmith.data.dataset import TokenDataset
from tunesmith.data.pack import pack
from tunesmith.losses.token import CROSS_ENTROPY, TokenLoss, dft
from tunesmith.models import attention
from tunesmith.models.loss_forward import HeadFacts, install
from tunesmith.objectives.pt import PreTraining
from tunesmith.objectives.sft import SupervisedFineTuning

LENGTHS = (13, 7, 21, 1, 9)


@pytest.fixture(scope="module", params=["chunked", "kept", "full"])
def model(request, tiny_model):
    """The tiny model with each of the forwards that end in the loss; `chunked` with the attention for flat batches."""
    from transformers import AutoModelForCausalLM

    attention.register()
    kind = attention.VARLEN if request.param == "chunked" else "sdpa"
    found = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32, attn_implementation=kind).eval()
    install(found, request.param, HeadFacts())
    return found


@pytest.fixture
def objective() -> SupervisedFineTuning:
    return SupervisedFineTuning(ObjectiveConfig(compute_accuracy=True))


def encoded(weights=None):
    """Five sequences, trained from the third token on; `weights`: one for each sequence."""
    generator = np.random.default_rng(0)
    return [
        Encoded(
            generator.integers(3, 100, length).tolist(),
            [place > 1 for place in range(length)],
            weights=None if weights is None else [weights[number]] * length,
        )
        for number, length in enumerate(LENGTHS)
    ]


def loss_and_gradient(model, objective, batch):
    """(output, gradient of the mean loss as one vector)."""
    model.zero_grad()
    output = objective.compute(model, batch)
    units = objective.count_units(batch)
    assert units == pytest.approx(float(output.units))
    (output.loss_sum / units).backward()
    return output, torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def assert_equal(one, other):
    (first, gradient), (second, other_gradient) = one, other
    means = [float(output.loss_sum.detach() / output.units) for output in (first, second)]
    assert means[0] == pytest.approx(means[1], rel=1e-5)
    assert float((gradient - other_gradient).norm()) < 1e-4 * float(gradient.norm())


def test_weights_of_one_change_nothing(model, objective):
    plain = loss_and_gradient(model, objective, PaddingCollator(0)(list(TokenDataset.from_encoded(encoded()))))
    ones = loss_and_gradient(model, objective, PaddingCollator(0)(list(TokenDataset.from_encoded(encoded([1] * 5)))))
    assert_equal(plain, ones)
    assert plain[0].units == ones[0].units == ones[0].count == 11 + 5 + 19 + 7


def test_a_weight_of_two_is_the_row_twice(model, objective):
    doubled = TokenDataset.from_encoded(encoded([1, 2, 1, 1, 1]))
    twice = TokenDataset.from_encoded([*encoded(), encoded()[1]])
    one, other = (loss_and_gradient(model, objective, PaddingCollator(0)(list(rows))) for rows in (doubled, twice))
    assert_equal(one, other)
    assert float(one[0].units) == float(other[0].units) == 47
    assert float(one[0].count) == 42  # the row is there once


def test_a_weight_of_zero_is_no_row(model, objective):
    without = TokenDataset.from_encoded([piece for number, piece in enumerate(encoded()) if number != 2])
    zero = TokenDataset.from_encoded(encoded([1, 1, 0, 1, 1]))
    one, other = (loss_and_gradient(model, objective, PaddingCollator(0)(list(rows))) for rows in (without, zero))
    assert_equal(one, other)
    assert one[0].metrics["accuracy"] == other[0].metrics["accuracy"]
    assert one[0].count == other[0].count


def test_accuracy_counts_tokens_whatever_they_weigh(model, objective):
    batches = [PaddingCollator(0)(list(TokenDataset.from_encoded(encoded(weights)))) for weights in (None, [3] * 5)]
    plain, heavy = (objective.compute(model, batch) for batch in batches)
    assert plain.metrics["accuracy"] == heavy.metrics["accuracy"]
    assert float(heavy.units) == 3 * float(heavy.count) == 3 * float(plain.units)


@pytest.mark.parametrize("weights", [None, [1, 0.5, 2, 1, 3]])
@pytest.mark.parametrize("one_row", [True, False])
def test_packs_give_the_loss_of_padded_rows(model, objective, weights, one_row):
    rows = TokenDataset.from_encoded(encoded(weights))
    packed = pack(rows, 30, seed=0)
    assert len(packed) == 2
    padded = loss_and_gradient(model, objective, PaddingCollator(0)(list(rows)))
    if not one_row and attention.attention_of(model) == attention.VARLEN:
        return  # without borders, and without the mask that SDPA gets
    flat = loss_and_gradient(model, objective, FlatCollator(0, one_row=one_row)(list(packed)))
    assert_equal(padded, flat)
    assert float(padded[0].count) == float(flat[0].count)


def test_a_run_is_proven_by_plain_cross_entropy():
    objective = SupervisedFineTuning(ObjectiveConfig(use_dft_loss=True))
    assert objective.provable().loss == CROSS_ENTROPY
    assert objective.loss == dft()
    smoothed = SupervisedFineTuning(ObjectiveConfig(), label_smoothing=0.1)
    assert smoothed.provable().loss == CROSS_ENTROPY
    assert smoothed.loss == TokenLoss(0.1)


def test_pre_training_takes_no_factors():
    found = PreTraining(ObjectiveConfig(use_dft_loss=True, use_eaft_loss=True), label_smoothing=0.1)
    assert found.loss == TokenLoss(0.1)


def test_a_batch_without_trained_tokens_has_a_zero_that_can_be_differentiated(model, objective):
    batch = FlatCollator(0)([{"input_ids": np.array([5, 6]), "trained": np.zeros(2, bool)}])
    output = objective.compute(model, batch)
    output.loss_sum.backward()
    assert (float(output.loss_sum.detach()), float(output.units), float(output.count)) == (0.0, 0.0, 0.0)
