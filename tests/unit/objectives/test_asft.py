"""Fine-tuning near a reference (ASFT), against the formula on the logits of transformers' own forward."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div
from torch.utils._python_dispatch import TorchDispatchMode

from tests.pairs import gradient_of, policy_of
from tests.split_steps import make_model, with_adapter
from tunesmith.config.objective import ObjectiveConfig
from tunesmith.core.types import Encoded
from tunesmith.data.collate import FlatCollator, PaddingCollator
from tunesmith.data.dataset import TokenDataset
from tunesmith.losses import linear_cross_entropy
from tunesmith.losses.token import CROSS_ENTROPY
from tunesmith.objectives.pt import PreTraining
from tunesmith.objectives.sft import SupervisedFineTuning
from tunesmith.train.micro import split
from tunesmith.train.reference import Beside, WithoutAdapter

ALPHA = 0.3
WAYS = ("chunked", "kept", "full", "reference")
COLLATORS = {"padded": PaddingCollator(0), "flat": FlatCollator(0)}


def rows(weighted: bool = False) -> list[Any]:
    generator = np.random.default_rng(0)
    return list(
        TokenDataset.from_encoded(
            Encoded(
                generator.integers(3, 97, size).tolist(),
                [place > 1 for place in range(size)],
                weights=[[0.5, 2.0, 1.0][place % 3] for place in range(size)] if weighted else None,
            )
            for size in (13, 7, 1, 9)
        )
    )


def by_hand(policy: Any, reference: Any, samples: list[Any], label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """(loss, divergence), as sums over all trained tokens: LlamaFactory's formula in float64, row by row."""
    total, apart = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for sample in samples:
        ids, trained = torch.tensor(sample["input_ids"]).long(), torch.tensor(sample["trained"])[1:]
        if not trained.any():
            continue
        weights = torch.tensor(sample.get("weights", np.ones(len(ids))))[1:][trained].double()
        logits = policy(input_ids=ids[None], use_cache=False).logits[0, :-1][trained].double()
        with torch.no_grad():
            other = reference(input_ids=ids[None], use_cache=False).logits[0, :-1][trained].double()
        targets = ids[1:][trained]
        chances = (-cross_entropy(logits.detach(), targets, reduction="none")).exp()
        each = cross_entropy(logits, targets, reduction="none", label_smoothing=label_smoothing) * chances
        kl = kl_div(logits.log_softmax(-1), other.log_softmax(-1), reduction="none", log_target=True).sum(-1)
        total = total + (weights * (each + ALPHA * kl)).sum()
        apart = apart + kl.detach().sum()
    return total, apart


def objective_of(reference: Any, **more: Any) -> SupervisedFineTuning:
    found = SupervisedFineTuning(ObjectiveConfig(use_asft_loss=True, asft_alpha=ALPHA), **more)
    found.reference = reference
    return found


@pytest.fixture(scope="module")
def plain() -> tuple[Any, Any]:
    return policy_of(None, 1), policy_of(None, 2)


@pytest.mark.parametrize("kind", COLLATORS)
@pytest.mark.parametrize(("way", "beside"), [*((way, way) for way in WAYS), ("chunked", "kept"), ("full", "chunked")])
def test_every_way_is_the_formula_on_all_logits(
    plain: tuple[Any, Any], way: str, beside: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the model and of the reference, which need not take the same one; a few rows of logits at a time."""
    monkeypatch.setitem(linear_cross_entropy.CHUNK_BYTES, "cpu", 1)
    samples = rows(weighted=kind == "flat")
    wanted, apart = by_hand(*plain, samples, label_smoothing=0.1)
    policy, reference = policy_of(way, 1), policy_of(beside, 2)
    found = objective_of(Beside(reference), label_smoothing=0.1).compute(policy, COLLATORS[kind](samples))
    torch.testing.assert_close(found.loss_sum.double(), wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.metrics["kl"], apart, rtol=1e-5, atol=1e-6)
    one, other = gradient_of(found.loss_sum, policy), gradient_of(wanted, plain[0])
    assert float((one - other).norm()) < 1e-5 * float(other.norm())
    assert all(weight.grad is None for weight in reference.parameters())


@pytest.mark.parametrize("way", ["chunked", "adapted", "kept"])
def test_the_reference_of_an_adapter_is_the_model_without_it(way: str) -> None:
    """Also where the output layer has an adapter, or is trained beside adapters."""
    from peft import LoraConfig, get_peft_model

    def build(way: str | None, attention: str) -> Any:
        model = make_model(way, attention)
        found = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"]))
        torch.manual_seed(1)
        with torch.no_grad():
            for weight in found.parameters():
                if weight.requires_grad:
                    weight.add_(0.1 * torch.randn_like(weight))
        return found

    if way == "adapted":
        policy, adapted = make_model(way, "varlen"), with_adapter(make_model(None, "eager"))
    else:
        policy, adapted = build(way, "varlen"), build(None, "eager")
    true = make_model(None, "eager")
    wanted, apart = by_hand(adapted, true, rows())
    assert float(apart) > 0.1
    found = objective_of(WithoutAdapter(policy)).compute(policy, FlatCollator(0)(rows()))
    torch.testing.assert_close(found.loss_sum.double(), wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.metrics["kl"], apart, rtol=1e-5, atol=1e-6)
    learnt = [[w for w in model.parameters() if w.requires_grad] for model in (policy, adapted)]
    for one, other in zip(
        torch.autograd.grad(found.loss_sum, learnt[0]), torch.autograd.grad(wanted, learnt[1]), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.norm()) + 1e-8)


@cache
def two_models() -> tuple[Any, SupervisedFineTuning]:
    return policy_of("chunked", 1), objective_of(Beside(policy_of("chunked", 2)))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 40), st.sampled_from(["padded", "flat"]), st.booleans())
def test_the_split_of_a_batch_changes_nothing(most: int, kind: str, weighted: bool) -> None:
    policy, objective = two_models()
    batch = COLLATORS[kind](rows(weighted))
    whole = objective.compute(policy, batch)
    parts = [objective.compute(policy, part) for part in split(batch, most)]
    loss = torch.stack([one.loss_sum for one in parts]).sum()
    torch.testing.assert_close(loss, whole.loss_sum, rtol=1e-6, atol=1e-6)
    one, other = gradient_of(whole.loss_sum, policy), gradient_of(loss, policy)
    assert float((one - other).norm()) <= 1e-5 * float(other.norm())
    for name, (value, count) in whole.sums().items():
        each = [part.sums()[name] for part in parts]
        torch.testing.assert_close(sum(one[0] for one in each), value, rtol=1e-5, atol=1e-6)
        assert float(sum(one[1] for one in each)) == float(count)


class _Shapes(TorchDispatchMode):  # type: ignore[misc]
    """Rows of the largest tensor over the vocabulary that is made."""

    most = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        found = function(*arguments, **(keywords or {}))
        if isinstance(found, Tensor) and found.ndim > 1 and found.shape[-1] == 97:
            self.most = max(self.most, found.numel() // 97)
        return found


def test_no_logits_of_all_tokens_are_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks have 16 rows at least; the weight of an output layer [97, 32], transposed, has 32."""
    policy, objective = two_models()
    generator = np.random.default_rng(3)
    ids = [generator.integers(3, 97, 60).tolist() for _ in range(3)]
    batch = FlatCollator(0)(list(TokenDataset.from_encoded(Encoded(one, [True] * 60) for one in ids)))
    shapes = {}
    for size in (1, 2**27):
        monkeypatch.setitem(linear_cross_entropy.CHUNK_BYTES, "cpu", size)
        with _Shapes() as seen:
            objective.compute(policy, batch).loss_sum.backward()
        shapes[size] = seen.most
    policy.zero_grad()
    assert shapes == {1: 32, 2**27: 3 * 59}


def test_what_is_proven_has_no_reference() -> None:
    objective = objective_of(None)
    assert objective.compares
    assert not objective.provable().compares
    assert objective.provable().loss == CROSS_ENTROPY
    assert not PreTraining(ObjectiveConfig(use_asft_loss=True)).compares
