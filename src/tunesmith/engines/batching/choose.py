"""How the next token is chosen from the scores of one request.

The order is that of transformers' `generate`: bias and constraint, penalties, temperature, top_k, top_p, min_p, a draw.
Everything about a request is its own, also the generator, so what else runs does not change what is chosen.

V size of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tunesmith.engines.base import Constraint, Sampling, Token

__all__ = ["Chooser"]


class Chooser:
    """Of one request. `choose` gives the next token, which counts for the penalties from then on."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int], constraint: Constraint | None) -> None:
        self._sampling, self._constraint = sampling, constraint
        self._prompt, self._reply = list(prompt), list[int]()
        self._generator = torch.Generator("cpu")
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)
        bare = not sampling.logit_bias and sampling.repetition_penalty == 1.0 and sampling.logprobs is None
        self.plain = (
            bare
            and sampling.greedy
            and constraint is None
            and not sampling.presence_penalty
            and not sampling.frequency_penalty
        )
        """Whether the token is that of the highest score, and nothing else is asked for."""

    def accept(self, token: int) -> None:
        """A token that was chosen elsewhere, of a `plain` one."""
        self._reply.append(token)

    def choose(self, logits: Tensor) -> Token:
        """logits [V] in float32, not changed. Raises what the constraint raises, and ValueError where it leaves no
        token."""
        token = self._pick(self._restricted(logits))
        self._reply.append(token)
        if self._constraint is not None:
            self._constraint.accept(token)
        return _told(token, logits, self._sampling.logprobs)

    def _restricted(self, logits: Tensor) -> Tensor:
        """With bias, constraint and penalties."""
        sampling, scores = self._sampling, logits
        if sampling.logit_bias:
            index = torch.tensor(list(sampling.logit_bias), device=logits.device)
            bias = torch.tensor(list(sampling.logit_bias.values()), dtype=logits.dtype, device=logits.device)
            scores = scores.index_add(0, index, bias)
        if self._constraint is not None:
            scores = scores.clone()
            self._constraint.restrict(scores)
            if not bool((scores > -torch.inf).any()):
                raise ValueError("the constraint allows no token")
        if sampling.repetition_penalty != 1.0:
            seen = torch.tensor(sorted({*self._prompt, *self._reply}), device=logits.device)
            before = scores[seen]
            factor = sampling.repetition_penalty
            scores = scores.index_copy(0, seen, torch.where(before < 0, before * factor, before / factor))
        if (sampling.presence_penalty or sampling.frequency_penalty) and self._reply:
            seen, counts = torch.tensor(self._reply, device=logits.device).unique(return_counts=True)
            scores = scores.index_add(0, seen, -sampling.presence_penalty - sampling.frequency_penalty * counts.float())
        return scores

    def _pick(self, scores: Tensor) -> int:
        sampling = self._sampling
        if sampling.greedy:
            return int(scores.argmax())
        ids: Tensor | None = None  # None: all tokens, in their order
        scores = scores / sampling.temperature
        if 0 < sampling.top_k < scores.shape[0]:
            scores, ids = scores.topk(sampling.top_k)
        elif sampling.top_p < 1.0:
            scores, ids = scores.sort(descending=True)
        shares = scores.softmax(dim=-1)
        if ids is not None and sampling.top_p < 1.0:  # the likeliest come first
            kept = shares.cumsum(dim=-1) - shares < sampling.top_p
            kept[0] = True
            shares = _renewed(shares, kept)
        if sampling.min_p > 0:
            shares = _renewed(shares, shares >= sampling.min_p * shares.max())
        if ids is not None:  # in the order of the vocabulary, so that two that change places change nothing
            ids, order = ids.sort()
            shares = shares[order]
        place = self._draw(shares)
        return place if ids is None else int(ids[place])

    def _draw(self, shares: Tensor) -> int:
        """A place of shares, by one number of the request's own generator."""
        sums = shares.double().cumsum(dim=-1)
        drawn = torch.rand((), dtype=torch.float64, generator=self._generator).to(sums.device) * sums[-1]
        place = int(torch.searchsorted(sums, drawn, right=True))
        return min(place, int(shares.nonzero()[-1]))


def _renewed(shares: Tensor, kept: Tensor) -> Tensor:
    shares = shares.masked_fill(~kept, 0.0)
    return shares / shares.sum()


def _told(token: int, logits: Tensor, logprobs: int | None) -> Token:
    if logprobs is None:
        return Token(token)
    logs = logits.log_softmax(dim=-1)
    best: Any = logs.topk(logprobs)
    top = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    return Token(token, float(logs[token]), top)
