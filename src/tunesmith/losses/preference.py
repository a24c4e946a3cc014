"""Losses of pairs of answers to one prompt, from the log probability of each answer.

P pairs, w the chosen answer, l the rejected one, |y| tokens of an answer.

    c, r    log p(w), log p(l): sums over the tokens of the answer; without reference, or per token where said
    C, R    log ratios log p(w) / p_ref(w), log p(l) / p_ref(l)
    D       f(C) - f(R); f is the identity, but of another divergence (`DIVERGENCES`)
    b       beta
    e       assumed share of wrong labels
    s       sigmoid; softly(x) = -(1 - e) log s(x) - e log s(-x)

Each function gives the losses [P] of the pairs, so that a caller may add them over any split of a batch; of those that
look at all pairs of a step (`PairFacts.whole_step`) `losses/whole_step.py` makes such sums. The numbers of equations
are of the papers in `config/preference_facts.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = ["DIVERGENCE", "PAIR_LOSSES", "REWARDS", "PairScores", "PairSettings", "log_odds", "sft"]

_LARGEST_EXPONENT = 80.0  # e ** 80 is 5.5e34: a float32 that can still be multiplied by beta
_LEAST_SURPRISE = 1e-7  # nats per token: nearer to certainty, odds are infinite


@dataclass(frozen=True, slots=True)
class PairScores:
    """What models say of P pairs; all [P], float32.

    `chosen`, `rejected`: log probability of the answer under the policy, summed over its tokens, with gradient.
    `chosen_length`, `rejected_length`: how many tokens those are, at least 1. `ref_...`: sums of the reference model,
    None without one. `..._alignment`: mean over tokens of log p[t] - log sum_v p[v] ** 2, without gradient, for WPO.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_length: Tensor
    rejected_length: Tensor
    ref_chosen: Tensor | None = None
    ref_rejected: Tensor | None = None
    chosen_alignment: Tensor | None = None
    rejected_alignment: Tensor | None = None

    def ratios(self) -> tuple[Tensor, Tensor]:
        """C and R [P]."""
        ref_chosen, ref_rejected = self.reference()
        return self.chosen - ref_chosen, self.rejected - ref_rejected

    def reference(self) -> tuple[Tensor, Tensor]:
        assert self.ref_chosen is not None, "the loss needs a reference"
        assert self.ref_rejected is not None, "the loss needs a reference"
        return self.ref_chosen, self.ref_rejected

    def averages(self) -> tuple[Tensor, Tensor]:
        """c / |w| and r / |l| [P]."""
        return self.chosen / self.chosen_length, self.rejected / self.rejected_length


@dataclass(frozen=True, slots=True)
class PairSettings:
    """Constants of the losses. `simpo_gamma`: margin of rewards. `alphapo_alpha`: shape of AlphaPO's reward, 0 is
    SimPO's. `cpo_alpha`: weight of CPO's fine-tuning term. `discopop_tau`: in (0, 1], above it the loss overflows."""

    beta: float = 0.1
    label_smoothing: float = 0.0
    divergence: str = "reverse_kl"
    divergence_alpha: float = 1.0
    simpo_gamma: float = 0.5
    alphapo_alpha: float = 0.25
    cpo_alpha: float = 1.0
    discopop_tau: float = 0.05


PairFunction: TypeAlias = Callable[[PairScores, PairSettings], Tensor]


def _exp_minus_one(x: Tensor) -> Tensor:
    return x.clamp(max=_LARGEST_EXPONENT).expm1()


def _alpha_divergence(ratio: Tensor, alpha: float) -> Tensor:
    """(t ** (alpha - 1) - 1) / (alpha - 1) at t = exp(ratio), whose limit at alpha = 1 is the ratio itself."""
    if abs(alpha - 1) < 1e-6:
        return ratio
    return _exp_minus_one((alpha - 1) * ratio) / (alpha - 1)


DIVERGENCE: Mapping[str, Callable[[Tensor, float], Tensor]] = {
    "reverse_kl": lambda ratio, alpha: ratio,
    "forward_kl": lambda ratio, alpha: -_exp_minus_one(-ratio),
    "js_divergence": lambda ratio, alpha: math.log(2) + logsigmoid(ratio),
    "alpha_divergence": _alpha_divergence,
}
"""f, the derivative of what generates the divergence, at t = exp(ratio). Exponents stop at 80, as in TRL."""


def _softly(x: Tensor, smoothing: float) -> Tensor:
    return -(1 - smoothing) * logsigmoid(x) - smoothing * logsigmoid(-x)


def _compared(scores: PairScores, to: PairSettings) -> tuple[Tensor, Tensor]:
    """f(C), f(R)."""
    chosen, rejected = scores.ratios()
    measure = DIVERGENCE[to.divergence]
    return measure(chosen, to.divergence_alpha), measure(rejected, to.divergence_alpha)


def _margin(scores: PairScores, to: PairSettings) -> Tensor:
    """b D."""
    chosen, rejected = _compared(scores, to)
    return to.beta * (chosen - rejected)


def _margin_per_token(scores: PairScores, to: PairSettings) -> Tensor:
    """f(C) / |w| - f(R) / |l|."""
    chosen, rejected = _compared(scores, to)
    return chosen / scores.chosen_length - rejected / scores.rejected_length


def sigmoid(scores: PairScores, to: PairSettings) -> Tensor:
    """softly(b D). With e > 0 it is conservative DPO, https://ericmitchell.ai/cdpo.pdf, eq. 3."""
    return _softly(_margin(scores, to), to.label_smoothing)


def sigmoid_norm(scores: PairScores, to: PairSettings) -> Tensor:
    """-log s(b (f(C) / |w| - f(R) / |l|)), of Tulu 3."""
    return -logsigmoid(to.beta * _margin_per_token(scores, to))


def hinge(scores: PairScores, to: PairSettings) -> Tensor:
    """max(0, 1 - b D)."""
    return torch.relu(1 - _margin(scores, to))


def ipo(scores: PairScores, to: PairSettings) -> Tensor:
    """(f(C) / |w| - f(R) / |l| - 1 / 2b)^2: eq. 17, per token as its authors compute it."""
    return (_margin_per_token(scores, to) - 1 / (2 * to.beta)) ** 2


def robust(scores: PairScores, to: PairSettings) -> Tensor:
    """(-(1 - e) log s(b D) + e log s(-b D)) / (1 - 2e): not biased by labels of which e are wrong. e < 1/2."""
    margin, wrong = _margin(scores, to), to.label_smoothing
    return (wrong * logsigmoid(-margin) - (1 - wrong) * logsigmoid(margin)) / (1 - 2 * wrong)


def exo_pair(scores: PairScores, to: PairSettings) -> Tensor:
    """KL((s(b D), s(-b D)) || (1 - e, e)): eq. 16 with two answers. 0 < e < 1."""
    margin = _margin(scores, to)
    right = margin.sigmoid() * (logsigmoid(margin) - math.log1p(-to.label_smoothing))
    wrong = (-margin).sigmoid() * (logsigmoid(-margin) - math.log(to.label_smoothing))
    return right + wrong


def discopop(scores: PairScores, to: PairSettings) -> Tensor:
    """-(1 - m) log s(b D) + m exp(-b D) with m = s(b D / tau): eq. 5.

    m exp(-b D) is one exponential here. Apart, they are zero times infinity for a pair that is very wrong.
    """
    margin = _margin(scores, to)
    steep = margin / to.discopop_tau
    return (logsigmoid(steep) - margin).exp() - (-steep).sigmoid() * logsigmoid(margin)


def nca_pair(scores: PairScores, to: PairSettings) -> Tensor:
    """-log s(bC) - (log s(-bC) + log s(-bR)) / 2."""
    chosen, rejected = ratio_rewards(scores, to)
    return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)


def bco_pair(scores: PairScores, to: PairSettings) -> Tensor:
    """-log s(bC) - log s(-bR), as in TRL; the paper subtracts the mean reward of answers first."""
    chosen, rejected = ratio_rewards(scores, to)
    return -logsigmoid(chosen) - logsigmoid(-rejected)


def sppo_hard(scores: PairScores, to: PairSettings) -> Tensor:
    """(C - 1 / 2b)^2 + (R + 1 / 2b)^2: eq. 4.7 where the chosen answer wins for certain."""
    chosen, rejected = scores.ratios()
    return (chosen - 0.5 / to.beta) ** 2 + (rejected + 0.5 / to.beta) ** 2


def apo_zero(scores: PairScores, to: PairSettings) -> Tensor:
    """1 - s(bC) + s(bR): eq. 7, for answers better than the model's own."""
    chosen, rejected = ratio_rewards(scores, to)
    return (-chosen).sigmoid() + rejected.sigmoid()


def apo_down(scores: PairScores, to: PairSettings) -> Tensor:
    """s(bC) + 1 - s(b(C - R)): eq. 8, for answers worse than the model's own."""
    chosen, rejected = ratio_rewards(scores, to)
    return chosen.sigmoid() + (rejected - chosen).sigmoid()


def aot(scores: PairScores, to: PairSettings) -> Tensor:
    """softly(b (sorted(c - r) - sorted(c_ref - r_ref))): margins of policy and reference compared by rank.

    P pairs are a sample, so the losses depend on all of them. They come in order of the margin."""
    ref_chosen, ref_rejected = scores.reference()
    policy = (scores.chosen - scores.rejected).sort().values
    reference = (ref_chosen - ref_rejected).sort().values
    return _softly(to.beta * (policy - reference), to.label_smoothing)


def aot_unpaired(scores: PairScores, to: PairSettings) -> Tensor:
    """softly(b (sorted(C) - sorted(R))): log ratios of chosen and of rejected answers compared by rank, as in `aot`."""
    chosen, rejected = scores.ratios()
    return _softly(to.beta * (chosen.sort().values - rejected.sort().values), to.label_smoothing)


def kto_pair(scores: PairScores, to: PairSettings) -> Tensor:
    """(2 - s(b(C - K_l)) - s(b(K_w - R))) / 2, K_w and K_l the means of C and R over all pairs, at least 0.

    They estimate the divergence from the reference and are constants for the gradient, as in the paper; TRL before 0.9
    differentiated them."""
    chosen, rejected = scores.ratios()
    of_chosen, of_rejected = (ratio.detach().mean().clamp(min=0) for ratio in (chosen, rejected))
    liked = (to.beta * (of_rejected - chosen)).sigmoid()
    disliked = (to.beta * (rejected - of_chosen)).sigmoid()
    return 0.5 * (liked + disliked)


def sft(scores: PairScores, to: PairSettings) -> Tensor:
    """-c / |w|: cross-entropy per token of the chosen answer, so that each pair counts alike."""
    return -scores.chosen / scores.chosen_length


def log_odds(scores: PairScores) -> Tensor:
    """log of (p / (1 - p) of w) / (p / (1 - p) of l), p the geometric mean of the probabilities of the tokens."""
    chosen, rejected = (average.clamp(max=-_LEAST_SURPRISE) for average in scores.averages())
    return (chosen - rejected) - (_log1mexp(chosen) - _log1mexp(rejected))


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)), x at most -1e-7, by whichever form loses no digits there. Both are finite there."""
    return torch.where(x > -math.log(2), (-x.expm1()).log(), (-x.exp()).log1p())


def orpo(scores: PairScores, to: PairSettings) -> Tensor:
    """-c / |w| - b log s(log odds)."""
    return sft(scores, to) - to.beta * logsigmoid(log_odds(scores))


def _shaped(average: Tensor, alpha: float) -> Tensor:
    """(1 - p ** -alpha) / alpha, p = exp(average); its limit at alpha = 0 is the average itself."""
    return average if alpha == 0 else -_exp_minus_one(-alpha * average) / alpha


def simpo(scores: PairScores, to: PairSettings) -> Tensor:
    """softly(b (c / |w| - r / |l|) - gamma)."""
    chosen, rejected = average_rewards(scores, to)
    return _softly(chosen - rejected - to.simpo_gamma, to.label_smoothing)


def alphapo(scores: PairScores, to: PairSettings) -> Tensor:
    """SimPO with the reward b (1 - p ** -alpha) / alpha, p the geometric mean of the probabilities of the tokens."""
    chosen, rejected = shaped_rewards(scores, to)
    return _softly(chosen - rejected - to.simpo_gamma, to.label_smoothing)


def cpo(scores: PairScores, to: PairSettings) -> Tensor:
    """softly(b (c - r)) - cpo_alpha c / |w|: eq. 3 and its fine-tuning term."""
    chosen, rejected = sum_rewards(scores, to)
    return _softly(chosen - rejected, to.label_smoothing) + to.cpo_alpha * sft(scores, to)


def cpo_hinge(scores: PairScores, to: PairSettings) -> Tensor:
    """max(0, 1 - b (c - r)) - cpo_alpha c / |w|: SLiC-HF with a fine-tuning term."""
    chosen, rejected = sum_rewards(scores, to)
    return torch.relu(1 - (chosen - rejected)) + to.cpo_alpha * sft(scores, to)


def cpo_ipo(scores: PairScores, to: PairSettings) -> Tensor:
    """(c / |w| - r / |l| - 1 / 2b)^2 - cpo_alpha c / |w|."""
    chosen, rejected = scores.averages()
    return (chosen - rejected - 1 / (2 * to.beta)) ** 2 + to.cpo_alpha * sft(scores, to)


def ratio_rewards(scores: PairScores, to: PairSettings) -> tuple[Tensor, Tensor]:
    """bC, bR."""
    chosen, rejected = scores.ratios()
    return to.beta * chosen, to.beta * rejected


def sum_rewards(scores: PairScores, to: PairSettings) -> tuple[Tensor, Tensor]:
    """bc, br."""
    return to.beta * scores.chosen, to.beta * scores.rejected


def average_rewards(scores: PairScores, to: PairSettings) -> tuple[Tensor, Tensor]:
    """bc / |w|, br / |l|."""
    chosen, rejected = scores.averages()
    return to.beta * chosen, to.beta * rejected


def shaped_rewards(scores: PairScores, to: PairSettings) -> tuple[Tensor, Tensor]:
    """AlphaPO's."""
    chosen, rejected = (_shaped(average, to.alphapo_alpha) for average in scores.averages())
    return to.beta * chosen, to.beta * rejected


PAIR_LOSSES: Mapping[str, PairFunction] = {
    "sigmoid": sigmoid,
    "sigmoid_norm": sigmoid_norm,
    "hinge": hinge,
    "ipo": ipo,
    "robust": robust,
    "exo_pair": exo_pair,
    "discopop": discopop,
    "nca_pair": nca_pair,
    "bco_pair": bco_pair,
    "sppo_hard": sppo_hard,
    "apo_zero": apo_zero,
    "apo_down": apo_down,
    "aot": aot,
    "aot_unpaired": aot_unpaired,
    "kto_pair": kto_pair,
    "orpo": orpo,
    "simpo": simpo,
    "alphapo": alphapo,
    "cpo": cpo,
    "cpo_hinge": cpo_hinge,
    "cpo_ipo": cpo_ipo,
    "sft": sft,
}

REWARDS: Mapping[str, Callable[[PairScores, PairSettings], tuple[Tensor, Tensor]]] = {
    "orpo": average_rewards,
    "simpo": average_rewards,
    "alphapo": shaped_rewards,
    "cpo": sum_rewards,
    "cpo_hinge": sum_rewards,
    "cpo_ipo": average_rewards,
    "sft": average_rewards,
}
"""What a loss takes for the reward of an answer, where it is not `ratio_rewards`."""
