"""ASFT: fine-tuning whose tokens count as much as the model believes in them, held near a reference model.

N tokens, V vocabulary, p the model's probabilities, q the reference's, t the target of a token.

    loss = sum_n w_n * (p_n[t] * -log p_n[t] + alpha * sum_v q_n[v] * (log q_n[v] - log p_n[v]))

The first factor p_n[t] is not differentiated (DFT, https://arxiv.org/abs/2508.05629). https://arxiv.org/abs/2509.23753
proposes the anchor; its direction, KL(q || p), and alpha are LlamaFactory's.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import kl_div

from tunesmith.losses.token import TokenStatistics, dft, of_logits

__all__ = ["asft", "reference_divergence"]


def reference_divergence(logits: Tensor, reference: Tensor) -> Tensor:
    """KL(q || p) [N] in nats, float32. logits, reference [N, V], any float type; a gradient goes to `logits` only.

    That gradient is p - q. Rows have nothing to do with each other, so a forward that makes a few rows of logits at a
    time needs the same rows of the reference beside them: from its hidden states and its output layer.
    """
    expected = reference.detach().float().log_softmax(-1)
    return kl_div(logits.float().log_softmax(-1), expected, reduction="none", log_target=True).sum(-1)


def asft(
    logits: Tensor, reference: Tensor, targets: Tensor, weights: Tensor | None, alpha: float
) -> tuple[Tensor, Tensor, TokenStatistics]:
    """(loss, float32 scalar; divergence [N] without gradient; statistics). targets [N] int64, weights [N] or None.

    A sum over tokens: it is divided by the trained tokens (by their weights), as the other losses of tokens.
    """
    fitted, told = of_logits(logits, targets, weights, dft())
    apart = reference_divergence(logits, reference)
    anchor = (apart if weights is None else apart * weights).sum()
    return fitted + alpha * anchor, apart.detach(), told
