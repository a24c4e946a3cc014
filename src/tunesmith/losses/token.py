"""What is made of the log probability of each token that a model is to write: a loss, as a sum over tokens.

N tokens, V vocabulary, l [N, V] logits, p = softmax(l), t the target of a token.

    loss = sum_n w_n * f_n * ((1 - e) * -log p_n[t] - e * mean_v log p_n[v])  [+ the anchor of `losses/asft.py`]

    w   weight of a token, of the data; what a sum over tokens is divided by is the sum of these, without f
    e   label smoothing, as transformers' `LabelSmoother` has it
    f   a factor from what the model says, which is not differentiated: 1, or
        DFT    p_n[t]                        https://arxiv.org/abs/2508.05629, eq. 9
        EAFT   (H_n / 3) ** alpha            https://arxiv.org/abs/2601.02151

H is the entropy in nats of the 20 most likely tokens, their probabilities divided by their sum. It is divided by 3,
close to its maximum ln 20 = 2.996, as its authors' code and LlamaFactory do. With fewer than 20 tokens in the
vocabulary it is that of all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tunesmith.losses.asft import Anchor, reference_divergence

__all__ = [
    "CROSS_ENTROPY",
    "LogProbs",
    "LogitRows",
    "TokenLoss",
    "TokenStatistics",
    "Weigh",
    "dft",
    "eaft",
    "log_probs_of_logits",
    "of_logits",
    "top_entropy",
]

_LIKELIEST = 20
_HIGH_ENTROPY = 3.0  # nats


@dataclass(slots=True)
class TokenStatistics:
    """What the model said at N tokens; float32 [N], without gradient. The entropies in nats, None where not asked for:
    `entropy` of all tokens of the vocabulary, `top_entropy` of the likeliest. `collision`: log sum_v p[v] ** 2.
    `divergence`: KL(q || p) from the reference of an anchor."""

    log_probs: Tensor
    correct: Tensor
    """bool [N]: is the target the most likely token?"""
    entropy: Tensor | None = None
    top_entropy: Tensor | None = None
    collision: Tensor | None = None
    divergence: Tensor | None = None

    @classmethod
    def joined(cls, parts: Sequence[TokenStatistics]) -> TokenStatistics:
        """Those of some tokens and of the next; at least one part."""
        columns = ([getattr(part, item.name) for part in parts] for item in fields(cls))
        return cls(*(None if column[0] is None else torch.cat(column) for column in columns))


Weigh: TypeAlias = Callable[[TokenStatistics], Tensor]
"""Statistics of C tokens -> [C] factors of their losses."""


@dataclass(frozen=True, slots=True)
class TokenLoss:
    """e and f of the formula above. `weigh` (None: 1) gets statistics with the entropy of as many of the most likely
    tokens as `likeliest` says, 0 for none. `anchor`: what holds the N tokens near a reference."""

    label_smoothing: float = 0.0
    weigh: Weigh | None = None
    likeliest: int = 0
    anchor: Anchor | None = None

    def part(self, part: slice) -> TokenLoss:
        """The loss of some of the tokens."""
        return self if self.anchor is None else replace(self, anchor=self.anchor.part(part))

    def weights(self, told: TokenStatistics, given: Tensor | None) -> Tensor | None:
        """w * f [N], None where all are 1. given [N]: w."""
        if self.weigh is None:
            return given
        factors = self.weigh(told)
        return factors if given is None else given * factors


CROSS_ENTROPY = TokenLoss()


@dataclass(frozen=True, slots=True)
class LogProbs:
    """In place of a loss: log p of each target, each with a gradient of its own, for losses that are no sums over
    tokens. `entropy`, `collision`: whether the statistics have it."""

    entropy: bool = False
    collision: bool = False


@dataclass(frozen=True, slots=True)
class LogitRows:
    """In place of a loss: `logits` as an `Anchor` wants them, of the model without adapters and without gradient."""


def dft() -> TokenLoss:
    """Dynamic fine-tuning: the loss of a token counts as much as the model believes in it."""
    return TokenLoss(weigh=_chance)


def eaft(alpha: float) -> TokenLoss:
    """Entropy-adaptive fine-tuning: the loss of a token counts as much as the model wavers there."""
    return TokenLoss(weigh=partial(_wavering, alpha=alpha), likeliest=_LIKELIEST)


def _chance(told: TokenStatistics) -> Tensor:
    return told.log_probs.exp()


def _wavering(told: TokenStatistics, alpha: float) -> Tensor:
    assert told.top_entropy is not None, "asked for by `likeliest`"
    return (told.top_entropy / _HIGH_ENTROPY) ** alpha


def top_entropy(logits: Tensor, likeliest: int) -> Tensor:
    """Entropy [N] of the most likely tokens among themselves. logits [N, V], any float type; computed in float32."""
    top = logits.topk(min(likeliest, logits.shape[-1]), dim=-1).values.float()
    log_probs = top.log_softmax(-1)
    return -(log_probs.exp() * log_probs).sum(-1)


def of_logits(
    logits: Tensor, targets: Tensor, weights: Tensor | None, how: TokenLoss, each: Tensor | None = None
) -> tuple[Tensor, TokenStatistics]:
    """(loss, float32 scalar; statistics) where there are logits [N, V]. targets [N] int64, weights [N] or None.

    `each` [N]: the smoothed losses, where they were computed already. N = 0 gives a zero that still has a gradient.
    """
    if each is None:
        each = cross_entropy(logits.float(), targets, reduction="none", label_smoothing=how.label_smoothing)
    with torch.no_grad():
        losses = cross_entropy(logits.float(), targets, reduction="none") if how.label_smoothing else each
        entropy = top_entropy(logits, how.likeliest) if how.likeliest else None
        told = TokenStatistics(-losses.detach(), logits.argmax(-1) == targets, top_entropy=entropy)
        counts = how.weights(told, weights)
    found = (each if counts is None else each * counts).sum()
    if how.anchor is not None:
        apart = reference_divergence(logits, how.anchor(slice(0, len(targets))))
        told.divergence = apart.detach()
        found = found + how.anchor.alpha * (apart if weights is None else apart * weights).sum()
    return found, told


def log_probs_of_logits(logits: Tensor, targets: Tensor, how: LogProbs) -> tuple[Tensor, TokenStatistics]:
    """(log p [N] float32 of the targets, with a gradient; statistics) where there are logits [N, V]."""
    logits = logits.float()
    found = -cross_entropy(logits, targets, reduction="none")
    with torch.no_grad():
        entropy = top_entropy(logits, logits.shape[-1]) if how.entropy else None
        collision = (2 * logits.log_softmax(-1)).logsumexp(-1) if how.collision else None
        told = TokenStatistics(found.detach(), logits.argmax(-1) == targets, entropy, collision=collision)
    return found, told
