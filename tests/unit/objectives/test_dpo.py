"""Learning from pairs: what the keys ask for, in every kind of batch, against transformers' own forward."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.pairs import gradient_of, log_probs_alone, policy_of, token_pairs
from tunesmith.config.objective import ObjectiveConfig
from tunesmith.config.preference_facts import PAIR_FACTS
from tunesmith.data.collate import FlatCollator, PaddingCollator
from tunesmith.losses.completions import tail_weights
from tunesmith.losses.mixture import PairMixture
from tunesmith.losses.preference import PairScores, PairSettings
from tunesmith.objectives import OBJECTIVES, Objective
from tunesmith.train.micro import split
from tunesmith.train.reference import Beside, Told

COLLATORS = {
    "padded": PaddingCollator(0),
    "flat": FlatCollator(0),
    "shared": FlatCollator(0, shares=True),
}


@pytest.fixture(scope="module")
def plain() -> tuple[Any, Any]:
    """(policy, reference) with transformers' own forward."""
    return policy_of(None, 1), policy_of(None, 2)


@pytest.fixture(scope="module", params=["chunked", "kept", "full", "reference"])
def quick(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return policy_of(request.param, 1), policy_of(request.param, 2)


def objective_of(reference: Any, **keys: Any) -> Objective:
    found: Objective = OBJECTIVES.get("dpo")(ObjectiveConfig(stage="dpo", **keys))
    found.reference = Beside(reference)
    return found


def scores_alone(plain: tuple[Any, Any], pairs: list[dict[str, Any]], alpha: float | None = None) -> PairScores:
    """What the losses read of these pairs, one sequence after the other."""
    sums = [[_sum(one, log_probs_alone(model, pair), alpha) for one in (0, 1)] for model in plain for pair in pairs]
    policy, reference = torch.stack([torch.stack(one) for one in sums]).split(len(pairs))
    lengths = torch.tensor([[int(part.sum()) for part in _trained(pair)] for pair in pairs]).double()
    return PairScores(*policy.unbind(1), *lengths.unbind(1), *reference.detach().unbind(1))


def _trained(pair: Mapping[str, Any]) -> list[Any]:
    first = int(pair["lengths"][0])
    return [pair["trained"][:first], pair["trained"][first:]]


def _sum(which: int, tokens: list[Tensor], alpha: float | None) -> Tensor:
    if alpha is None:
        return tokens[which].sum()
    lengths = torch.tensor([len(one) for one in tokens])
    weights = tail_weights(lengths, lengths.amin().expand(2), alpha).split(lengths.tolist())
    return (tokens[which] * weights[which]).sum()


def settled(objective: Objective, model: Any, batch: Any) -> Any:
    if not objective.whole_step:
        return batch
    return {**batch, "settled": objective.settle(objective.look(model, batch).double())}


def check(plain: tuple[Any, Any], quick: tuple[Any, Any], batch: Any, expected: PairMixture, **keys: Any) -> None:
    objective = objective_of(quick[1], **keys)
    scores = scores_alone(plain, token_pairs())
    assert (scores.chosen - scores.ref_chosen).abs().min().item() > 0.01, "policy and reference are not the same"
    wanted = expected(scores_alone(plain, token_pairs(), keys.get("ld_alpha"))).sum()
    found = objective.compute(quick[0], settled(objective, quick[0], batch))
    assert float(found.units) == objective.count_units(batch) == 4
    torch.testing.assert_close(found.loss_sum.double(), wanted, rtol=1e-5, atol=1e-5)
    one, other = gradient_of(found.loss_sum, quick[0]), gradient_of(wanted, plain[0])
    assert float((one - other).norm()) < 1e-4 * float(other.norm())


@pytest.mark.parametrize("kind", COLLATORS)
def test_every_kind_of_batch_is_two_sequences_a_pair(plain: tuple[Any, Any], quick: tuple[Any, Any], kind: str) -> None:
    check(plain, quick, COLLATORS[kind](token_pairs()), PairMixture())


def test_pairs_may_share_padded_rows(plain: tuple[Any, Any]) -> None:
    """As packs, which transformers keeps apart."""
    quick = policy_of("full", 1, "sdpa"), policy_of("full", 2, "sdpa")
    check(plain, quick, FlatCollator(0, one_row=False)(token_pairs()), PairMixture())


KEYS: dict[str, tuple[dict[str, Any], PairMixture]] = {
    "pref_beta": ({"pref_beta": 0.7}, PairMixture(settings=PairSettings(beta=0.7))),
    "dpo_label_smoothing": ({"dpo_label_smoothing": 0.2}, PairMixture(settings=PairSettings(label_smoothing=0.2))),
    "pref_ftx": ({"pref_ftx": 0.5}, PairMixture(ftx=0.5)),
    "pref_bco_weight": ({"pref_bco_weight": 0.3}, PairMixture(bco_weight=0.3)),
    "pref_loss_weights": (
        {"pref_loss": ("sigmoid", "bco_pair", "sft"), "pref_loss_weights": (0.8, 0.2, 1.0)},
        PairMixture((("sigmoid", 0.8), ("bco_pair", 0.2), ("sft", 1.0))),
    ),
    "pref_divergence": (
        {"pref_divergence": "alpha_divergence", "pref_divergence_alpha": 0.5},
        PairMixture(settings=PairSettings(divergence="alpha_divergence", divergence_alpha=0.5)),
    ),
    "simpo_gamma": (
        {"pref_loss": ("simpo",), "simpo_gamma": 0.9},
        PairMixture((("simpo", 1.0),), PairSettings(simpo_gamma=0.9)),
    ),
    "alphapo_alpha": (
        {"pref_loss": ("alphapo",), "alphapo_alpha": 0.1},
        PairMixture((("alphapo", 1.0),), PairSettings(alphapo_alpha=0.1)),
    ),
    "cpo_alpha": ({"pref_loss": ("cpo",), "cpo_alpha": 0.1}, PairMixture((("cpo", 1.0),), PairSettings(cpo_alpha=0.1))),
    "discopop_tau": (
        {"pref_loss": ("discopop",), "discopop_tau": 0.5},
        PairMixture((("discopop", 1.0),), PairSettings(discopop_tau=0.5)),
    ),
    "ld_alpha": ({"ld_alpha": 0.4}, PairMixture()),
}


@pytest.mark.parametrize("key", KEYS)
def test_the_keys_say_what_the_loss_is(plain: tuple[Any, Any], key: str) -> None:
    keys, expected = KEYS[key]
    quick = policy_of("chunked", 1), policy_of("chunked", 2)
    check(plain, quick, COLLATORS["shared"](token_pairs()), expected, **keys)


@pytest.mark.parametrize("kind", COLLATORS)
def test_rows_may_bring_what_the_reference_says(quick: tuple[Any, Any], kind: str) -> None:
    """Each pair asked alone, and no reference while the loss is computed, in any split."""
    objective = objective_of(quick[1], ld_alpha=0.4)
    whole = objective.compute(quick[0], COLLATORS[kind](token_pairs()))
    pairs = [
        {**pair, "reference": objective.reference_sums(quick[0], COLLATORS[kind]([pair]))["reference"].numpy()}
        for pair in token_pairs()
    ]
    objective.reference = Told()
    for most in (None, 40, 0):
        parts = [objective.compute(quick[0], part) for part in split(COLLATORS[kind](pairs), most)]
        loss = torch.stack([part.loss_sum for part in parts]).sum()
        torch.testing.assert_close(loss, whole.loss_sum, rtol=1e-6, atol=1e-6)


def test_weights_of_wpo_are_those_of_the_policy(plain: tuple[Any, Any]) -> None:
    """Mean over an answer of log p[t] - log sum_v p[v] ** 2, from all logits."""
    quick = policy_of("chunked", 1), policy_of("chunked", 2)
    scores = scores_alone(plain, token_pairs())
    factors = []
    for pair in token_pairs():
        first, apart = int(pair["lengths"][0]), 0.0
        for part in (slice(first), slice(first, None)):
            ids = torch.tensor(pair["input_ids"][part]).long()
            chances = plain[0](input_ids=ids[None]).logits[0, :-1].double().log_softmax(-1)
            each = chances[torch.arange(len(ids) - 1), ids[1:]] - chances.exp().square().sum(-1).log()
            apart += each[torch.tensor(pair["trained"][part])[1:]].mean().item()
        factors.append(apart)
    wanted = (PairMixture()(scores) * torch.tensor(factors).double().exp()).sum()
    found = objective_of(quick[1], use_wpo=True).compute(quick[0], COLLATORS["shared"](token_pairs()))
    torch.testing.assert_close(found.loss_sum.double(), wanted, rtol=1e-5, atol=1e-6)


def test_entropy_is_told_where_a_model_is_evaluated(plain: tuple[Any, Any]) -> None:
    quick = policy_of("chunked", 1), policy_of("chunked", 2)
    wanted = 0.0
    for pair in token_pairs():
        first = int(pair["lengths"][0])
        for part in (slice(first), slice(first, None)):
            ids = torch.tensor(pair["input_ids"][part]).long()
            chances = plain[0](input_ids=ids[None]).logits[0, :-1].detach().double().log_softmax(-1)
            entropy = -(chances.exp() * chances).sum(-1)
            wanted += float(entropy[torch.tensor(pair["trained"][part])[1:]].mean()) / 2
    found = objective_of(quick[1]).compute(quick[0], COLLATORS["shared"](token_pairs()))
    assert float(found.metrics["entropy"]) == pytest.approx(wanted, rel=1e-5)
    found = objective_of(quick[1]).compute(quick[0].train(), COLLATORS["shared"](token_pairs()))
    assert "entropy" not in found.metrics


@pytest.mark.parametrize("name", PAIR_FACTS)
def test_the_split_of_a_batch_changes_nothing(name: str) -> None:
    """Every loss, of pairs together and one by one, with a sum of losses and gradient."""
    policy, reference = policy_of("chunked", 1), policy_of("chunked", 2)
    objective = objective_of(reference, pref_loss=(name,), dpo_label_smoothing=0.1 if name == "exo_pair" else 0.0)
    batch = settled(objective, policy, COLLATORS["shared"](token_pairs()))
    whole = objective.compute(policy, batch)
    parts = [objective.compute(policy, part) for part in split(batch, 0)]
    assert len(parts) == 4
    loss = torch.stack([one.loss_sum for one in parts]).sum()
    torch.testing.assert_close(loss, whole.loss_sum, rtol=1e-6, atol=1e-6)
    one, other = gradient_of(whole.loss_sum, policy), gradient_of(loss, policy)
    assert float((one - other).norm()) <= 1e-5 * float(other.norm())
    for metric, value in whole.metrics.items():
        torch.testing.assert_close(sum(part.metrics[metric] for part in parts), value)


def test_a_rank_without_pairs_gives_nothing(plain: tuple[Any, Any]) -> None:
    policy, reference = policy_of("chunked", 1), policy_of("chunked", 2)
    row = token_pairs()[0]
    blank = {"input_ids": row["input_ids"][:2], "trained": row["trained"][:2] & False}
    for collate in COLLATORS.values():
        found = objective_of(reference).compute(policy, collate([blank]))
        assert (found.loss_sum.item(), float(found.units)) == (0, 0)
        assert found.loss_sum.requires_grad, "several devices wait for a gradient of each"


def test_a_policy_is_its_own_reference_at_first() -> None:
    policy = policy_of("chunked", 1)
    objective = objective_of(copy(policy))
    found = objective.compute(policy.requires_grad_(True), COLLATORS["shared"](token_pairs()))
    assert float(found.metrics["rewards/margins"]) == pytest.approx(0, abs=1e-9)
    assert found.loss_sum.item() == pytest.approx(4 * 0.6931471805599453)
