"""Losses of preferences and of rewards, and their gradients, are those of TRL's own code on the same logits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests import trl_trainers as trl
from tests.preference_witnesses import CPO_NAMES, DPO_NAMES, KTO_NAMES
from tests.trl_trainers import Batch, random_batch
from tunesmith.config.preference_facts import DIVERGENCES, PAIR_FACTS
from tunesmith.losses.completions import tail_weights
from tunesmith.losses.feedback import FeedbackScores, FeedbackSettings, divergence, feedback_loss, feedback_metrics
from tunesmith.losses.mixture import PairMixture
from tunesmith.losses.preference import PAIR_LOSSES, PairScores, PairSettings
from tunesmith.losses.reward import bradley_terry, reward_metrics

pytestmark = pytest.mark.usefixtures("torch_one_thread")

CLOSE = 1e-6
LENGTHS = [3, 7, 5, 2, 6, 4, 4, 8]  # four chosen answers, four rejected
SETTINGS = PairSettings(beta=0.3, label_smoothing=0.15, simpo_gamma=0.7, cpo_alpha=0.4, discopop_tau=0.5)


def pairs(**more: object) -> Batch:
    return random_batch(LENGTHS, scale=2.0, **more)  # type: ignore[arg-type]


def compare(batch: Batch, ours: Tensor, theirs: Tensor) -> None:
    """Both are means over pairs: the same number with the same gradient of every logit."""
    torch.testing.assert_close(ours, theirs, rtol=CLOSE, atol=CLOSE)
    [mine] = torch.autograd.grad(ours, batch.logits, retain_graph=True)
    [other] = torch.autograd.grad(theirs, batch.logits)
    torch.testing.assert_close(mine, other, rtol=CLOSE, atol=CLOSE)
    assert mine.abs().max() > 100 * CLOSE


@pytest.mark.parametrize("name", DPO_NAMES)
def test_dpo(name: str) -> None:
    to = SETTINGS if PAIR_FACTS[name].smooths and name != "sigmoid" else replace(SETTINGS, label_smoothing=0.0)
    batch = pairs()
    theirs, _ = trl.dpo(batch, {name: 1.0}, to)
    compare(batch, PAIR_LOSSES[name](batch.scores(), to).mean(), theirs)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("name", [name for name in DPO_NAMES if PAIR_FACTS[name].divergence])
def test_divergences(name: str, divergence: str) -> None:
    # TRL computes alpha_divergence in float32, where exp(x) - 1 keeps fewer digits than ours.
    single = divergence == "alpha_divergence"
    to = replace(SETTINGS, divergence=divergence, divergence_alpha=0.4, beta=0.02 if name == "ipo" else 0.3)
    to = to if PAIR_FACTS[name].smooths and name != "sigmoid" else replace(to, label_smoothing=0.0)
    batch = random_batch(LENGTHS, scale=0.5, dtype=torch.float32 if single else torch.float64)
    theirs, _ = trl.dpo(batch, {name: 1.0}, to)
    ours = PAIR_LOSSES[name](batch.scores(), to).mean()
    torch.testing.assert_close(ours, theirs, rtol=2 * CLOSE if single else CLOSE, atol=CLOSE)
    [mine], [other] = (torch.autograd.grad(loss, batch.logits) for loss in (ours, theirs))
    torch.testing.assert_close(mine, other, rtol=1e-5 if single else CLOSE, atol=CLOSE)


def test_alpha_of_one_is_the_divergence_of_dpo() -> None:
    batch = pairs(dtype=torch.float32)
    to = replace(SETTINGS, label_smoothing=0.0, divergence="alpha_divergence", divergence_alpha=1.0)
    compare(batch, PAIR_LOSSES["sigmoid"](batch.scores(), to).mean(), trl.dpo(batch, {"sigmoid": 1.0}, to)[0])


def test_smoothed_sigmoid() -> None:
    """CPOTrainer smooths labels, DPOTrainer no more: log ratios in the place of log probabilities make it DPO."""
    scores = pairs().scores()
    theirs = trl.cpo_of_numbers(*scores.ratios(), "sigmoid", SETTINGS)
    torch.testing.assert_close(PAIR_LOSSES["sigmoid"](scores, SETTINGS), theirs, rtol=CLOSE, atol=CLOSE)


def test_fine_tuning_on_the_chosen_answer_pair_by_pair() -> None:
    """TRL's mean is over the tokens of a batch, ours over pairs: the same of a pair alone."""
    whole = pairs()
    for number in range(4):
        batch = whole.pair(number)
        compare(batch, PAIR_LOSSES["sft"](batch.scores(), SETTINGS).mean(), trl.dpo(batch, {"sft": 1.0}, SETTINGS)[0])


@pytest.mark.parametrize("name", CPO_NAMES)
@pytest.mark.parametrize("number", range(4))
def test_without_reference(name: str, number: int) -> None:
    """TRL's fine-tuning term is a mean over the tokens of a batch: the same of a pair alone."""
    batch = pairs().pair(number)
    scores, mixture = batch.scores(), PairMixture(((name, 1.0),), SETTINGS)
    theirs, told = _reference_free(batch, name)
    compare(batch, mixture(scores).mean(), theirs)
    found = mixture.metrics(scores)
    for key in [key for key in found if "/" in key]:
        assert found[key].item() == pytest.approx(told[key], rel=CLOSE, abs=CLOSE), key
    if name == "orpo":
        assert found["odds_ratio_loss"].item() == pytest.approx(-told["log_odds_ratio"], rel=CLOSE)
    if PAIR_FACTS[name].sft:
        assert found["sft_loss"].item() == pytest.approx(told["nll_loss"], rel=CLOSE)


def _reference_free(batch: Batch, name: str) -> tuple[Tensor, dict[str, float]]:
    if name == "orpo":
        return trl.orpo(batch, SETTINGS)
    asked = {"cpo": "sigmoid", "cpo_hinge": "hinge", "cpo_ipo": "ipo", "simpo": "simpo", "alphapo": "simpo"}
    return trl.cpo(batch, asked[name], SETTINGS, alpha=SETTINGS.alphapo_alpha if name == "alphapo" else 0.0)


@pytest.mark.parametrize(
    ("theirs", "ours"), [("sigmoid", "cpo"), ("hinge", "cpo_hinge"), ("ipo", "cpo_ipo"), ("tpo-l", "simpo")]
)
def test_the_contrast_of_tpo(theirs: str, ours: str) -> None:
    to = replace(SETTINGS, cpo_alpha=0.0)
    batch = pairs()
    compare(batch, PAIR_LOSSES[ours](batch.scores(), to).mean(), trl.tpo(batch, theirs, to)[0])


def test_several_losses_with_weights() -> None:
    """MPO."""
    to = replace(SETTINGS, label_smoothing=0.0)
    batch = random_batch([5, 5, 5, 7, 3, 4], scale=2.0)  # chosen answers alike: a mean of tokens is one of pairs
    terms = {"sigmoid": 0.8, "bco_pair": 0.2, "sft": 1.0}
    theirs, told = trl.dpo(batch, terms, to)
    mixture = PairMixture(tuple(terms.items()), to)
    compare(batch, mixture(batch.scores()).mean(), theirs)
    found = mixture.metrics(batch.scores())
    for key in [key for key in found if "/" in key]:
        assert found[key].item() / 3 == pytest.approx(told[key], rel=CLOSE), key


@pytest.mark.parametrize("name", ["sigmoid", "ipo", "nca_pair", "sppo_hard"])
def test_wpo(name: str) -> None:
    to = replace(SETTINGS, label_smoothing=0.0)
    batch = pairs()
    theirs, _ = trl.dpo(batch, {name: 0.5, "apo_zero": 2.0}, to, wpo=True)
    mixture = PairMixture(((name, 0.5), ("apo_zero", 2.0)), to, weighted=True)
    compare(batch, mixture(batch.scores()).mean(), theirs)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_length_desensitized(alpha: float) -> None:
    to = replace(SETTINGS, label_smoothing=0.0)
    batch = pairs()
    theirs, _ = trl.dpo(batch, {"sigmoid": 1.0}, to, ld_alpha=alpha)
    lengths = batch.mask.sum(1)
    shared = torch.minimum(*lengths.chunk(2)).repeat(2)
    weights = tail_weights(lengths, shared, alpha)
    trained = batch.mask[:, 1:]
    counted = [batch.log_probs(of)[trained] * weights for of in (batch.logits, batch.ref_logits)]
    sums = [torch.stack([answer.sum() for answer in each.split(lengths.tolist())]) for each in counted]
    counts = lengths.double().chunk(2)
    scores = PairScores(*sums[0].chunk(2), *counts, *sums[1].chunk(2))
    compare(batch, PAIR_LOSSES["sigmoid"](scores, to).mean(), theirs)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.3, 0.6)])
@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("name", KTO_NAMES)
def test_kto(name: str, apart: bool, weights: tuple[float, float]) -> None:
    """`apart`: the divergence of the mismatched answers is above 0."""
    batch, other = pairs(), random_batch(LENGTHS, scale=2.0, seed=5)
    sums = [other.log_probs(of).detach().sum() for of in (other.logits, other.ref_logits)]
    if (sums[0] > sums[1]) != apart:
        other = replace(other, logits=other.ref_logits, ref_logits=other.logits.detach())
    liked = torch.tensor([True, False, True, True, False, True, False, False])
    theirs, told = trl.kto(batch, liked, other if name == "kto" else None, name, weights, 0.3)

    ratios = (other.log_probs(other.logits) - other.log_probs(other.ref_logits)).detach().sum(1)
    kl = divergence(ratios.sum(), len(ratios))
    assert (kl > 0) == apart
    assert told["kl"] == pytest.approx(kl.item() if name == "kto" else 0.0)
    policy, reference = (batch.log_probs(of).sum(1) for of in (batch.logits, batch.ref_logits))
    scores = FeedbackScores(policy, reference, batch.mask.sum(1).double(), liked)
    settings = FeedbackSettings(0.3, *weights)
    compare(batch, feedback_loss(name, scores, settings, kl).mean(), theirs)

    found, counts = feedback_metrics(scores, settings, torch.zeros(len(liked)))
    for key in ("rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected"):
        assert (found[key] / counts[key]).item() == pytest.approx(told[key], rel=CLOSE), key


@pytest.mark.parametrize("margin", [None, torch.tensor([0.5, 2.0, 0.0], dtype=torch.float64)])
@pytest.mark.parametrize("center", [None, 0.01])
def test_bradley_terry(margin: Tensor | None, center: float | None) -> None:
    chosen, rejected = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).unbind()
    chosen.requires_grad_()
    theirs, told = trl.reward(chosen, rejected, margin, center)
    ours = bradley_terry(chosen, rejected, margin, center or 0.0).mean()
    torch.testing.assert_close(ours, theirs, rtol=CLOSE, atol=CLOSE)
    [mine], [other] = (torch.autograd.grad(loss, chosen) for loss in (ours, theirs))
    torch.testing.assert_close(mine, other, rtol=CLOSE, atol=CLOSE)
    found = reward_metrics(chosen, rejected)
    for key in ("accuracy", "margin"):
        assert found[key].item() / 3 == pytest.approx(told[key], rel=CLOSE)
