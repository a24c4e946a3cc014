"""ASFT: fine-tuning whose tokens count as much as the model believes in them, held near a reference model.

N tokens, V vocabulary, p the model's probabilities, q the reference's, t the target of a token.

    loss = sum_n w_n * (p_n[t] * -log p_n[t] + alpha * sum_v q_n[v] * (log q_n[v] - log p_n[v]))

The first factor p_n[t] is not differentiated (DFT, https://arxiv.org/abs/2508.05629). https://arxiv.org/abs/2509.23753
proposes the anchor; its direction, KL(q || p), and alpha are LlamaFactory's. It goes with any loss of tokens
(`losses/token.py`); its gradient with respect to the model's logits is alpha * w * (p - q).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

__all__ = ["Anchor", "divergence_into", "reference_divergence"]


@dataclass(frozen=True, slots=True, eq=False)
class Anchor:
    """A reference at N tokens. `logits`: a slice of them -> its logits [C, V] there, float32, without gradient, in a
    tensor that the caller may overwrite. So no more rows of it are alive than of the model's. `first`: where the tokens
    begin among those that `logits` knows."""

    alpha: float
    logits: Callable[[slice], Tensor]
    first: int = 0

    def __call__(self, part: slice) -> Tensor:
        return self.logits(slice(self.first + part.start, self.first + part.stop))

    def part(self, part: slice) -> Anchor:
        """The same at some of the tokens."""
        return replace(self, first=self.first + part.start)


def reference_divergence(logits: Tensor, reference: Tensor) -> Tensor:
    """KL(q || p) [N] in nats, float32. logits, reference [N, V], any float type; a gradient goes to `logits` only."""
    expected = reference.detach().float().log_softmax(-1)
    return (expected.exp() * (expected - logits.float().log_softmax(-1))).sum(-1)


def divergence_into(logits: Tensor, reference: Tensor) -> Tensor:
    """The same of float32 logits without gradient; `reference` is overwritten with q."""
    reference.sub_(reference.logsumexp(-1, keepdim=True))
    apart = (reference - logits).add_(logits.logsumexp(-1, keepdim=True))
    return apart.mul_(reference.exp_()).sum(-1)
