"""The losses of tokens by plain formulas on whole logits: what ours are compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy

from tunesmith.losses.token import CROSS_ENTROPY, TokenLoss, dft, eaft


@dataclass(frozen=True)
class Case:
    """Ours, the keys that ask for it, and the loss [N] of each token from logits [N, V] and targets [N]."""

    ours: TokenLoss
    keys: dict[str, Any]
    each: Callable[[Tensor, Tensor], Tensor] = field(repr=False)


def _plain(logits: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(logits, targets, reduction="none")


def _smoothed(logits: Tensor, targets: Tensor) -> Tensor:
    return 0.85 * _plain(logits, targets) - 0.15 * logits.log_softmax(-1).mean(-1)


def _dft(logits: Tensor, targets: Tensor) -> Tensor:
    """As LlamaFactory 0.9.5 (train/trainer_utils.py, `_dft_cross_entropy`)."""
    losses = _plain(logits, targets)
    return losses * (-losses).detach().exp()


def _eaft(alpha: float) -> Callable[[Tensor, Tensor], Tensor]:
    """As `_eaft_cross_entropy` there."""

    def each(logits: Tensor, targets: Tensor) -> Tensor:
        return _plain(logits, targets) * (entropy_of_likeliest(logits, 20) / 3) ** alpha

    return each


def entropy_of_likeliest(logits: Tensor, count: int) -> Tensor:
    """[N], without gradient, of logits [N, V]."""
    chances = logits.detach().softmax(-1).sort(-1, descending=True).values[:, :count]
    chances = chances / chances.sum(-1, keepdim=True)
    return -(chances * chances.log()).sum(-1)


CASES = {
    "plain": Case(CROSS_ENTROPY, {}, _plain),
    "smoothed": Case(TokenLoss(0.15), {"label_smoothing_factor": 0.15}, _smoothed),
    "dft": Case(dft(), {"use_dft_loss": True}, _dft),
    "eaft": Case(eaft(1.0), {"use_eaft_loss": True}, _eaft(1.0)),
    "eaft, alpha 0.4": Case(eaft(0.4), {"use_eaft_loss": True, "eaft_alpha": 0.4}, _eaft(0.4)),
}
