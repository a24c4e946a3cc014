"""The forward that ends in the loss: every way to it, every loss of tokens, against transformers' logits of each
sequence alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.split_steps import WAYS, with_adapter
from tests.tiny_models import tiny_model
from tests.token_losses import CASES
from tunesmith.config.objective import ObjectiveConfig
from tunesmith.core.types import Encoded
from tunesmith.data.collate import FlatCollator, PaddingCollator
from tunesmith.data.dataset import TokenDataset
from tunesmith.losses import linear_cross_entropy
from tunesmith.models import attention
from tunesmith.models.loss_forward import HeadFacts, install
from tunesmith.objectives import OBJECTIVES, Objective

pytestmark = pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")

LENGTHS = (13, 7, 21, 1, 9)


@pytest.fixture(scope="module", params=[*WAYS, "reference"])
def models(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """(a model whose forward ends in the loss, the same with transformers' own forward). Soft-capped logits."""
    attention.register()
    found = []
    for kind in (attention.VARLEN, "eager"):
        model = tiny_model("gemma2", kind)
        facts = HeadFacts(soft_cap=model.config.final_logit_softcapping)
        assert facts.soft_cap
        if kind == attention.VARLEN:
            install(model, "chunked" if request.param == "adapted" else request.param, facts)
        found.append(with_adapter(model) if request.param == "adapted" else model)
    return found[0], found[1]


def samples(weighted: bool) -> TokenDataset:
    """Trained from the third token on, but the second sequence, of which nothing is."""
    generator = np.random.default_rng(0)
    return TokenDataset.from_encoded(
        Encoded(
            generator.integers(3, 97, length).tolist(),
            [place > 1 and number != 1 for place in range(length)],
            weights=[round(float(one), 2) for one in generator.uniform(0.1, 2, length)] if weighted else None,
        )
        for number, length in enumerate(LENGTHS)
    )


def objective_of(case: str) -> Objective:
    keys = dict(CASES[case].keys)
    smoothing = keys.pop("label_smoothing_factor", 0.0)
    return OBJECTIVES.get("sft")(ObjectiveConfig(compute_accuracy=True, **keys), label_smoothing=smoothing)


def gradient(loss: torch.Tensor, model: Any) -> torch.Tensor:
    parameters = [one for one in model.parameters() if one.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    pairs = zip(found, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if one is None else one).flatten().double() for one, p in pairs])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("flat", [False, True])
def test_loss_and_gradient_are_those_of_whole_logits(
    models: tuple[Any, Any], case: str, weighted: bool, flat: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(linear_cross_entropy.CHUNK_BYTES, "cpu", 1)  # chunks of 16 rows
    quick, plain = models
    rows = list(samples(weighted))
    objective = objective_of(case)
    batch = (FlatCollator(0) if flat else PaddingCollator(0))(rows)
    output = objective.compute(quick, batch)

    expected, nll, right = torch.zeros(()), 0.0, 0
    for row in rows:
        ids = torch.as_tensor(np.array(row["input_ids"])).long()
        trained = torch.as_tensor(np.array(row["trained"]))[1:]
        logits = plain(input_ids=ids[None], use_cache=False).logits[0, :-1][trained]
        targets = ids[1:][trained]
        weights = torch.as_tensor(np.array(row["weights"]))[1:][trained] if weighted else 1.0
        expected = expected + (CASES[case].each(logits, targets) * weights).sum()
        nll += float(CASES["plain"].each(logits, targets).detach().sum())
        right += int((logits.argmax(-1) == targets).sum())
    torch.testing.assert_close(output.loss_sum, expected, rtol=1e-5, atol=0)
    wanted = gradient(expected, plain)
    assert (gradient(output.loss_sum, quick) - wanted).norm() < 1e-5 * wanted.norm()
    assert float(output.units) == pytest.approx(objective.count_units(batch))
    assert float(output.metrics["accuracy"]) == right
    assert ("nll_loss" in output.metrics) == (case != "plain")
    if case != "plain":
        assert float(output.metrics["nll_loss"]) == pytest.approx(nll, rel=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_where_nothing_is_trained_all_weights_have_a_gradient_of_zero(models: tuple[Any, Any], case: str) -> None:
    """Several devices add up the gradient of each weight, and wait for it."""
    model = models[0]
    batch = FlatCollator(0)([{"input_ids": np.array([5, 6]), "trained": np.zeros(2, bool)}])
    output = objective_of(case).compute(model, batch)
    model.zero_grad()
    output.loss_sum.backward()
    assert float(output.loss_sum.detach()) == 0
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert not parameter.grad.any(), name
