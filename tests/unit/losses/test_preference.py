"""Losses of pairs: numbers by hand, laws that hold for any numbers, and pairs that are very wrong."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.preference_witnesses import WITNESSES
from tunesmith.config.preference_facts import DIVERGENCES, FEEDBACK_FACTS, OTHER_NAMES, PAIR_FACTS
from tunesmith.losses.feedback import FEEDBACK_LOSSES
from tunesmith.losses.mixture import PairMixture
from tunesmith.losses.preference import DIVERGENCE, PAIR_LOSSES, REWARDS, PairScores, PairSettings
from tunesmith.losses.whole_step import WholeStep

LN2, LN3 = math.log(2), math.log(3)
SMOOTH = PairSettings(label_smoothing=0.1)


def scores(
    chosen: list[float],
    rejected: list[float],
    ref_chosen: list[float] | None = None,
    ref_rejected: list[float] | None = None,
    lengths: tuple[list[float], list[float]] | None = None,
    near: tuple[list[float], list[float]] | None = None,
) -> PairScores:
    def number(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)

    ones = [1.0] * len(chosen)
    return PairScores(
        number(chosen).requires_grad_(),
        number(rejected).requires_grad_(),
        *map(number, lengths or (ones, ones)),
        number(ref_chosen or [0.0] * len(chosen)),
        number(ref_rejected or [0.0] * len(chosen)),
        *map(number, near or ([0.0] * len(chosen), [0.0] * len(chosen))),
    )


def test_every_loss_has_facts_a_function_and_a_witness() -> None:
    assert list(PAIR_LOSSES) == list(PAIR_FACTS)
    assert list(FEEDBACK_LOSSES) == list(FEEDBACK_FACTS)
    assert set(WITNESSES) == set(PAIR_FACTS) | set(FEEDBACK_FACTS)
    assert tuple(DIVERGENCE) == DIVERGENCES
    assert set(OTHER_NAMES.values()) <= set(PAIR_FACTS)
    assert not set(OTHER_NAMES) & set(PAIR_FACTS)
    assert set(REWARDS) == {name for name, facts in PAIR_FACTS.items() if not facts.reference}


def test_what_a_loss_says_that_it_reads_is_what_it_reads() -> None:
    """Of each fact: whether another value of it makes another loss."""
    of = scores([-3.0, -2.0], [-5.0, -2.5], [-3.5, -4.0], [-4.0, -2.0], ([2.0, 3.0], [4.0, 5.0]))
    longer = replace(of, chosen_length=of.chosen_length + 1)
    other = replace(of, ref_chosen=of.ref_chosen - 1)  # type: ignore[operator]
    js = PairSettings(divergence="js_divergence", label_smoothing=0.1)
    for name, facts in PAIR_FACTS.items():
        loss = PAIR_LOSSES[name]
        plain = loss(of, SMOOTH)
        assert facts.reference == (not torch.equal(plain, loss(other, SMOOTH))), name
        assert (facts.averages or facts.sft) == (not torch.equal(plain, loss(longer, SMOOTH))), name
        assert facts.smooths == (not torch.equal(plain, loss(of, replace(SMOOTH, label_smoothing=0.2)))), name
        assert facts.divergence == (not torch.equal(plain, loss(of, js))), name


def test_dpo_by_hand() -> None:
    """b D = ln 3 for both, by (4 - 1) ln 3 / 3 and by (1 - -2) ln 3 / 3; s(ln 3) = 3/4."""
    of = scores([4 * LN3, 0.0], [0.0, -LN3], [0.0, -LN3], [-LN3, LN3])
    loss = PAIR_LOSSES["sigmoid"](of, PairSettings(beta=1 / 3))
    torch.testing.assert_close(loss, torch.tensor([math.log(4 / 3)] * 2, dtype=torch.float64))
    loss.sum().backward()
    # d/dc of -log s(b D) is -b s(-b D) = -1/3 * 1/4
    torch.testing.assert_close(of.chosen.grad, torch.tensor([-1 / 12] * 2, dtype=torch.float64))


def test_kto_of_pairs_by_hand() -> None:
    """C = (ln 3, -ln 2), R = (-ln 3, -ln 3): K_w = (ln 3 - ln 2) / 2, K_l = 0 as the mean is below 0.

    s(C - 0) is 3/4 and 1/3; exp(K_w - R) = 3 sqrt(3/2), so s(K_w - R) is that over 1 + that."""
    of = scores([LN3, -LN2], [-LN3, -LN3])
    loss = PAIR_LOSSES["kto_pair"](of, PairSettings(beta=1.0))
    odds = 3 * math.sqrt(3 / 2)
    disliked = 1 - odds / (1 + odds)
    expected = torch.tensor([(1 - 3 / 4 + disliked) / 2, (1 - 1 / 3 + disliked) / 2], dtype=torch.float64)
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    # K is a constant: of (1 - s(C)) / 2 the derivative is -s s(-) / 2
    torch.testing.assert_close(of.chosen.grad, torch.tensor([-3 / 32, -1 / 9], dtype=torch.float64))


def test_kto_of_pairs_one_by_one() -> None:
    """The formula with loops and Python's floats."""
    draw = torch.Generator().manual_seed(2)
    c, r, cr, rr = (torch.randn(4, 7, dtype=torch.float64, generator=draw) * 5).tolist()
    beta = 0.3
    k_w = max(0.0, sum(a - b for a, b in zip(c, cr, strict=True)) / 7)
    k_l = max(0.0, sum(a - b for a, b in zip(r, rr, strict=True)) / 7)
    expected = [
        1 - (1 / (1 + math.exp(-beta * (c[i] - cr[i] - k_l))) + 1 / (1 + math.exp(-beta * (k_w - r[i] + rr[i])))) / 2
        for i in range(7)
    ]
    found = PAIR_LOSSES["kto_pair"](scores(c, r, cr, rr), PairSettings(beta=beta))
    torch.testing.assert_close(found.detach(), torch.tensor(expected, dtype=torch.float64))


def test_orpo_and_simpo_by_hand() -> None:
    """Two tokens of p = 3/4 against four of 1/2: odds 3 and 1."""
    of = scores([2 * math.log(3 / 4)], [4 * math.log(1 / 2)], lengths=([2.0], [4.0]))
    orpo = PAIR_LOSSES["orpo"](of, PairSettings(beta=0.5))
    assert orpo.item() == pytest.approx(math.log(4 / 3) + 0.5 * math.log(4 / 3))
    # b (ln 3/4 - ln 1/2) = 2 ln 3/2, less gamma = ln 9/4 is 0
    simpo = PAIR_LOSSES["simpo"](of, PairSettings(beta=2.0, simpo_gamma=math.log(9 / 4)))
    assert simpo.item() == pytest.approx(LN2)


def test_robust_labels_are_right_on_average() -> None:
    """Of labels that are turned with chance e, the loss is expected to be that of the right ones."""
    of, to = scores([1.0, -3.0], [2.0, -9.0]), PairSettings(label_smoothing=0.2)
    turned = replace(of, chosen=of.rejected, rejected=of.chosen)
    expected = 0.8 * PAIR_LOSSES["robust"](of, to) + 0.2 * PAIR_LOSSES["robust"](turned, to)
    torch.testing.assert_close(expected, PAIR_LOSSES["sigmoid"](of, PairSettings()))


def test_limits_of_constants() -> None:
    of = scores([-3.0, -2.0], [-5.0, -2.5], [-3.5, -4.0], [-4.0, -2.0], ([2.0, 3.0], [4.0, 5.0]))
    plain = PairSettings()
    equal = {
        ("robust", plain): ("sigmoid", plain),
        ("alphapo", PairSettings(alphapo_alpha=0.0)): ("simpo", plain),
        ("sigmoid", PairSettings(divergence="alpha_divergence", divergence_alpha=1.0)): ("sigmoid", plain),
        ("cpo_hinge", PairSettings(cpo_alpha=0.0, beta=0.0)): ("hinge", PairSettings(beta=0.0)),
    }
    for (name, to), (other, others) in equal.items():
        torch.testing.assert_close(PAIR_LOSSES[name](of, to), PAIR_LOSSES[other](of, others), msg=name)
    close = PAIR_LOSSES["alphapo"](of, PairSettings(alphapo_alpha=1e-7))
    torch.testing.assert_close(close, PAIR_LOSSES["simpo"](of, plain), rtol=1e-6, atol=1e-6)


def test_the_added_terms_by_hand() -> None:
    """(loss + w bco) / (1 + w) + ftx * -c / |w| with all rewards b C = b R = ln 3: BCO's terms are those of chances of
    3/4 and 1/4, and the loss is ln 2."""
    of = scores([LN3], [LN3], lengths=([4.0], [1.0]))
    found = PairMixture(settings=PairSettings(beta=1.0), ftx=0.5, bco_weight=0.25)(of)
    assert found.item() == pytest.approx((LN2 + 0.25 * math.log(16 / 3)) / 1.25 - 0.5 * LN3 / 4)
    mixture = PairMixture((("sigmoid", 2.0), ("hinge", 3.0)), PairSettings(beta=1.0), weighted=True)
    # alignments ln 2 and ln 3 weigh the pair 6 times
    alike = torch.tensor([LN2], dtype=torch.float64, requires_grad=True)
    near = replace(of, chosen_alignment=alike, rejected_alignment=alike.detach() - LN2 + LN3)
    loss = mixture(near)
    assert loss.item() == pytest.approx(6 * (2 * LN2 + 3))
    loss.sum().backward()
    assert alike.grad is None


def test_metrics_are_sums() -> None:
    of = scores([-3.0, -2.0], [-5.0, -2.5], [-3.5, -4.0], [-4.0, -6.0], ([2.0, 4.0], [4.0, 5.0]))
    found = PairMixture((("orpo", 1.0),)).metrics(of)
    assert found["logps/chosen"].item() == pytest.approx(-3 / 2 - 2 / 4)
    assert found["sft_loss"].item() == pytest.approx(2.0)
    told = {name: value.item() for name, value in PairMixture(settings=PairSettings(beta=0.5)).metrics(of).items()}
    # b C = (0.25, 1), b R = (-0.5, 1.75)
    assert told == pytest.approx(
        {
            "rewards/chosen": 1.25,
            "rewards/rejected": 1.25,
            "rewards/accuracies": 1.0,
            "rewards/margins": 0.0,
            "logps/chosen": -5.0,
            "logps/rejected": -7.5,
        }
    )


@pytest.mark.parametrize("name", PAIR_LOSSES)
@pytest.mark.parametrize("size", [1e4, -1e4, 0.0])
def test_gradients_of_extreme_pairs_are_finite(name: str, size: float) -> None:
    of = PairScores(
        *(torch.tensor([value, value / 3]).requires_grad_() for value in (size, -size)),
        *(torch.ones(2), torch.ones(2), torch.zeros(2), torch.zeros(2)),
    )
    if PAIR_FACTS[name].averages or PAIR_FACTS[name].sft:  # log probabilities, which are below 0
        of = replace(
            of, **{side: (getattr(of, side) - abs(size)).detach().requires_grad_() for side in ("chosen", "rejected")}
        )
    loss = PAIR_LOSSES[name](of, SMOOTH)
    gradients = torch.autograd.grad(loss.sum(), (of.chosen, of.rejected), allow_unused=True)
    assert loss.isfinite().all()
    assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_divergences_of_extreme_pairs_have_finite_gradients(divergence: str, size: float) -> None:
    to = PairSettings(label_smoothing=0.1, divergence=divergence, divergence_alpha=0.5)
    for name in ("sigmoid", "robust", "hinge", "exo_pair", "discopop"):
        chosen = torch.tensor([size]).requires_grad_()
        zero, one = torch.zeros(1), torch.ones(1)
        PAIR_LOSSES[name](PairScores(chosen, -chosen, one, one, zero, zero), to).sum().backward()
        assert chosen.grad is not None
        assert chosen.grad.isfinite().all(), name


@st.composite
def some_pairs(draw: st.DrawFn) -> PairScores:
    count = draw(st.integers(1, 7))
    logp = st.lists(st.floats(-60, -0.01), min_size=count, max_size=count)
    near = st.lists(st.floats(-2, 2), min_size=count, max_size=count)
    length = st.lists(st.integers(1, 50).map(float), min_size=count, max_size=count)
    lengths, alike = (draw(length), draw(length)), (draw(near), draw(near))
    return scores(draw(logp), draw(logp), draw(logp), draw(logp), lengths, alike)


def rows(of: PairScores, keep: Tensor) -> PairScores:
    return PairScores(*(getattr(of, name)[keep] for name in PairScores.__slots__))


def _part(step: WholeStep, of: PairScores, part: Tensor) -> Tensor:
    """With the gradient that the whole has for these pairs, and their share of its value."""
    linear = (of.chosen * step.chosen[part]).sum() + (of.rejected * step.rejected[part]).sum()
    return linear + (step.loss_sum * len(part) / len(step.chosen) - linear).detach()


@settings(max_examples=8, deadline=None)
@given(some_pairs(), st.data())
def test_losses_and_gradients_do_not_depend_on_the_split(of: PairScores, data: st.DataObject) -> None:
    """Pairs in any order and any parts; what looks at all pairs gets them in a pass before."""
    count = len(of.chosen)
    order = torch.tensor(data.draw(st.permutations(range(count))))
    cuts = sorted(data.draw(st.lists(st.integers(1, max(1, count - 1)), max_size=3)))
    for name in PAIR_LOSSES:
        mixture = PairMixture(((name, 0.7), ("sigmoid", 0.3)), SMOOTH, ftx=0.1, bco_weight=0.2)
        whole = mixture(of).sum()
        expected = torch.autograd.grad(whole, (of.chosen, of.rejected))
        parts = [part for part in order.tensor_split(cuts) if len(part)]
        step = WholeStep.of(mixture, of)
        split = [
            _part(step, rows(of, part), part) if mixture.whole_step else mixture(rows(of, part)).sum() for part in parts
        ]
        total = torch.stack(split).sum()
        torch.testing.assert_close(total, whole, msg=name)
        found = torch.autograd.grad(total, (of.chosen, of.rejected))
        torch.testing.assert_close(found, expected, msg=name)


@settings(max_examples=10, deadline=None)
@given(some_pairs())
def test_pairs_that_are_turned(of: PairScores) -> None:
    """-log s(-x) + log s(x) = x: what turning a pair adds to the loss of DPO is its margin."""
    turned = PairScores(of.rejected, of.chosen, of.rejected_length, of.chosen_length, of.ref_rejected, of.ref_chosen)
    chosen, rejected = of.ratios()
    for name, margin in {"sigmoid": chosen - rejected, "robust": (chosen - rejected) / 0.8}.items():
        to = PairSettings(label_smoothing=0.0 if name == "sigmoid" else 0.1)
        added = PAIR_LOSSES[name](turned, to) - PAIR_LOSSES[name](of, to)
        torch.testing.assert_close(added, 0.1 * margin, msg=name)
    # 1/2 for both: labels say nothing
    even = PairSettings(label_smoothing=0.5)
    for name in ("sigmoid", "exo_pair"):
        torch.testing.assert_close(PAIR_LOSSES[name](turned, even), PAIR_LOSSES[name](of, even), msg=name)
    # Wrong labels with chance e for certain are right ones of turned pairs with 1 - e.
    for name in ("sigmoid", "exo_pair"):
        few, many = PairSettings(label_smoothing=0.2), PairSettings(label_smoothing=0.8)
        torch.testing.assert_close(PAIR_LOSSES[name](turned, many), PAIR_LOSSES[name](of, few), msg=name)


def test_a_micro_batch_of_a_whole_step_is_not_the_whole() -> None:
    """Why `whole_step` is declared: the mean over halves is another loss, for just those that declare it."""
    of = scores(*(-9 * torch.rand(4, 6, generator=torch.Generator().manual_seed(1))).tolist())
    halves = [rows(of, torch.arange(6)[part]) for part in (slice(3), slice(3, None))]
    for name, facts in PAIR_FACTS.items():
        loss = PAIR_LOSSES[name]
        apart = torch.stack([loss(half, SMOOTH).sum() for half in halves]).sum()
        assert facts.whole_step == (not torch.isclose(apart, loss(of, SMOOTH).sum())), name
