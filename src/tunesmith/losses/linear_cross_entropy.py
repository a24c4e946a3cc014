"""From hidden states to the loss of the next token, without the logits of all tokens at once.

The output layer runs over a few rows at a time, and what it gives is used up on the spot: the loss of these rows, what
is to be known about them, and the gradient. So no tensor of N x V is ever alive, neither in forward nor in backward,
and no logit is computed twice. Since the loss is a sum, its gradient is known in forward but for one factor. Where
tokens have gradients of their own (`linear_log_probs`) that holds for the hidden states, token by token.

N tokens, H hidden, V vocabulary, C rows of a chunk.

    z      = hidden @ weight.T + bias            logits of the output layer
    l      = cap(z * scale)                      cap(x) = soft_cap * tanh(x / soft_cap)
    log p  = l[target] - logsumexp(l)
    loss   = sum_n c_n * ((1 - e) * -log p_n + e * (logsumexp(l_n) - mean(l_n)))      e: label smoothing
    dl     = c_n * (softmax(l_n) - (1 - e) * onehot(target) - e / V)

An anchor (`losses/asft.py`) adds its own to both; the logits of its reference are made beside those of a chunk.

c_n is the weight of a token times the factor of its loss, which is not differentiated (`losses/token.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tunesmith.losses.asft import divergence_into
from tunesmith.losses.token import CROSS_ENTROPY, LogProbs, TokenLoss, TokenStatistics, top_entropy

__all__ = ["Head", "chunk_rows", "linear_cross_entropy", "linear_log_probs"]

CHUNK_BYTES = {"cpu": 2**27, "cuda": 2**29}
"""Memory for the float32 logits of a chunk, by kind of device; other kinds as the CPU.

cpu   measured on two cores with V = 151,936 (bench/loss.py): chunks of 128 to 256 rows take a tenth more time than 512
      at once, which need up to four times the memory; 32 rows take 1.7 times as long
cuda  counted, not measured: of C rows a product computes C FLOPs for each byte of a weight in half precision. H100 can
      compute 295 in the time it reads one (989 TFLOP/s, 3.35 TB/s), so C has to be well above that: 883 rows of
      V = 151,936, 1,046 of V = 128,256. With H = 4096 the two products of a chunk then take 2 ms, which hides starting
      its 20 kernels or so
"""


@dataclass(frozen=True, slots=True)
class Head:
    """The output layer. `weight` [V, H], `bias` [V] or None; see the formulas above for `scale` and `soft_cap`."""

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    soft_cap: float | None = None


@dataclass(slots=True)
class _Options:
    scale: float
    soft_cap: float | None
    loss: TokenLoss
    wants_entropy: bool
    rows: int
    wants_collision: bool = False
    differentiable: bool = field(default_factory=torch.is_grad_enabled)
    """Without this autograd would ask for gradients of weights in an evaluation too."""
    statistics: list[TokenStatistics] = field(default_factory=list)


def linear_cross_entropy(
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    *,
    weights: Tensor | None = None,
    how: TokenLoss = CROSS_ENTROPY,
    entropy: bool = False,
    rows: int | None = None,
) -> tuple[Tensor, TokenStatistics]:
    """(loss summed over N tokens in nats, float32 scalar; statistics).

    hidden [N, H], targets [N] int64, weights [N] float32 (None: all 1). `entropy`: whether the statistics have it.
    `rows`: C. Differentiable once, with respect to hidden, the weight and the bias of the head.
    """
    rows = rows or chunk_rows(head.weight, beside=1 if how.anchor is None else 2)
    options = _Options(head.scale, head.soft_cap, how, entropy, rows)
    hidden, weight, bias = _in_one_type(hidden, head)
    loss: Tensor = _LinearCrossEntropy.apply(hidden, weight, bias, targets, weights, options)
    return loss, TokenStatistics.joined(options.statistics)


def linear_log_probs(
    hidden: Tensor, head: Head, targets: Tensor, *, how: LogProbs | None = None, rows: int | None = None
) -> tuple[Tensor, TokenStatistics]:
    """(log p [N] float32 of the targets, each with a gradient of its own; statistics): for losses that are no sums over
    tokens. `how`: what the statistics have.

    A frozen head needs its logits once: the gradient of a token's hidden state is known in forward but for a factor of
    that token. Of a head that is trained they are computed again in backward.
    """
    how, rows = how or LogProbs(), rows or chunk_rows(head.weight)
    options = _Options(head.scale, head.soft_cap, CROSS_ENTROPY, how.entropy, rows, how.collision)
    hidden, weight, bias = _in_one_type(hidden, head)
    found: Tensor = _LinearLogProbs.apply(hidden, weight, bias, targets, options)
    return found, TokenStatistics.joined(options.statistics)


def chunk_rows(weight: Tensor, beside: int = 1) -> int:
    """Rows of a chunk for an output layer [V, H]. `beside`: how many models have logits of it at once."""
    room = CHUNK_BYTES.get(weight.device.type, CHUNK_BYTES["cpu"])
    return max(16, room // (4 * beside * int(weight.shape[0])))


def _in_one_type(hidden: Tensor, head: Head) -> tuple[Tensor, Tensor, Tensor | None]:
    """What the layer multiplies: under autocast in its type, as the layer itself would; else in that of the weight."""
    device = hidden.device.type
    kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.weight.dtype
    bias = None if head.bias is None else head.bias.to(kind)
    return hidden.to(kind), head.weight.to(kind), bias


def _chunks(count: int, rows: int) -> Iterator[slice]:
    """At least one, which may be empty."""
    return (slice(start, min(start + rows, count)) for start in range(0, max(count, 1), rows))


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, options: _Options) -> Tensor:
    """[C, V] float32, a tensor of its own."""
    found = torch.nn.functional.linear(hidden, weight, bias).float()
    if options.scale != 1.0:
        found.mul_(options.scale)
    if options.soft_cap is not None:
        found.div_(options.soft_cap).tanh_().mul_(options.soft_cap)
    return found


def _into_layer(gradient: Tensor, capped: Tensor | None, options: _Options) -> Tensor:
    """The gradient of capped and scaled logits as one of the layer's output; both [C, V], `gradient` is overwritten."""
    if capped is not None:  # d/dx of cap * tanh(x / cap) is 1 - tanh^2
        assert options.soft_cap is not None
        gradient.mul_(1 - (capped / options.soft_cap) ** 2)
    if options.scale != 1.0:
        gradient.mul_(options.scale)
    return gradient


class _Gradients:
    """Gradients of the inputs, added up chunk by chunk; those that nobody needs are None."""

    def __init__(self, needs: tuple[bool, ...], hidden: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        self.hidden = torch.empty_like(hidden) if needs[0] else None
        # In half precision the sum over chunks would lose what a chunk adds.
        self.weight = torch.zeros_like(weight, dtype=torch.float32) if needs[1] else None
        self.bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and needs[2] else None
        self._kinds = weight.dtype

    @property
    def wanted(self) -> bool:
        return self.hidden is not None or self.weight is not None or self.bias is not None

    def add(self, part: slice, gradient: Tensor, hidden: Tensor, weight: Tensor) -> None:
        """`gradient` [C, V] of the layer's output."""
        if self.bias is not None:
            self.bias += gradient.sum(0)
        gradient = gradient.to(weight.dtype)
        if self.hidden is not None:
            torch.mm(gradient, weight, out=self.hidden[part])
        if self.weight is not None:
            if self.weight.dtype == gradient.dtype:
                self.weight.addmm_(gradient.T, hidden[part])
            else:
                self.weight += gradient.T @ hidden[part]

    def done(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        weight = None if self.weight is None else self.weight.to(self._kinds)
        bias = None if self.bias is None else self.bias.to(self._kinds)
        return self.hidden, weight, bias


class _LinearCrossEntropy(torch.autograd.Function):  # type: ignore[misc]  # mypy does not look into torch
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        weights: Tensor | None,
        options: _Options,
    ) -> Tensor:
        needs = ctx.needs_input_grad if options.differentiable else (False, False, False)
        gradients = _Gradients(needs, hidden, weight, bias)
        total = hidden.new_zeros((), dtype=torch.float64 if hidden.device.type != "mps" else torch.float32)
        for part in _chunks(len(targets), options.rows):
            logits = _logits(hidden[part], weight, bias, options)
            wanted = targets[part][:, None]
            given = None if weights is None else weights[part]
            total += _use_up(logits, wanted, given, options, gradients, part, hidden, weight)
        ctx.gradients = gradients.done()
        return total.float()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        found = [None if one is None else one.mul_(upstream) for one in ctx.gradients]
        ctx.gradients = None
        return (*found, None, None, None)


def _use_up(
    logits: Tensor,
    wanted: Tensor,
    given: Tensor | None,
    options: _Options,
    gradients: _Gradients,
    part: slice,
    hidden: Tensor,
    weight: Tensor,
) -> Tensor:
    """The loss of a chunk; its logits [C, V] become their gradient, and that those of the inputs. wanted [C, 1]."""
    size, smoothing, anchor = logits.shape[-1], options.loss.label_smoothing, options.loss.anchor
    reference = None if anchor is None else anchor(part)
    apart = None if reference is None else divergence_into(logits, reference)
    capped = logits.clone() if options.soft_cap is not None and gradients.wanted else None
    top, best = logits.max(dim=-1, keepdim=True)
    target = logits.gather(1, wanted)
    mean = logits.mean(-1, keepdim=True) if smoothing else None
    among_top = top_entropy(logits, options.loss.likeliest) if options.loss.likeliest else None
    entropy_of = logits.clone() if options.wants_entropy else None
    logits.sub_(top).exp_()
    total = logits.sum(-1, keepdim=True)
    log_total = total.log() + top
    logits.div_(total)  # the probabilities
    entropy = None
    if entropy_of is not None:
        entropy = (log_total - (entropy_of.mul_(logits)).sum(-1, keepdim=True)).squeeze(-1)
    collision = logits.square().sum(-1).log() if options.wants_collision else None
    right = (best == wanted).squeeze(-1)
    told = TokenStatistics((target - log_total).squeeze(-1), right, entropy, among_top, collision, apart)
    options.statistics.append(told)
    counts = options.loss.weights(told, given)
    losses = -(1 - smoothing) * told.log_probs
    if mean is not None:
        losses = losses + smoothing * (log_total - mean).squeeze(-1)
    losses = losses if counts is None else losses * counts
    pulls = None if anchor is None or given is None else given * anchor.alpha
    if anchor is not None and apart is not None:
        losses = losses + apart * (anchor.alpha if pulls is None else pulls)
    if gradients.wanted:
        if anchor is not None and reference is not None:  # q becomes alpha * (p - q)
            reference.sub_(logits).mul_(-anchor.alpha if pulls is None else -pulls[:, None])
        if mean is not None:
            logits.sub_(smoothing / size)
        logits.scatter_add_(1, wanted, logits.new_full((1, 1), smoothing - 1).expand_as(wanted))
        if counts is not None:
            logits.mul_(counts[:, None])
        if reference is not None:
            logits.add_(reference)
        gradients.add(part, _into_layer(logits, capped, options), hidden, weight)
    return losses.double().sum()


class _LinearLogProbs(torch.autograd.Function):  # type: ignore[misc]  # mypy does not look into torch
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, options: _Options
    ) -> Tensor:
        wants_hidden, *wants_head = ctx.needs_input_grad[:3]
        ctx.once = options.differentiable and wants_hidden and not any(wants_head)
        ctx.options = options
        gradients = _Gradients((ctx.once, False, False), hidden, weight, bias)
        for part in _chunks(len(targets), options.rows):
            logits = _logits(hidden[part], weight, bias, options)
            _use_up(logits, targets[part][:, None], None, options, gradients, part, hidden, weight)
        if ctx.once:
            ctx.save_for_backward(gradients.done()[0])  # of -log p
        elif options.differentiable:
            ctx.save_for_backward(hidden, weight, bias, targets)
        return torch.cat([one.log_probs for one in options.statistics])

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.once:
            (each,) = ctx.saved_tensors
            return (each * -upstream[:, None]).to(each.dtype), None, None, None, None
        hidden, weight, bias, targets = ctx.saved_tensors
        options: _Options = ctx.options
        gradients = _Gradients(ctx.needs_input_grad, hidden, weight, bias)
        for part in _chunks(len(targets), options.rows):
            logits = _logits(hidden[part], weight, bias, options)
            capped = logits.clone() if options.soft_cap is not None else None
            torch.softmax(logits, -1, out=logits)
            logits.neg_()
            wanted = targets[part][:, None]
            logits.scatter_add_(1, wanted, torch.ones_like(wanted, dtype=logits.dtype))
            logits.mul_(upstream[part][:, None])
            gradients.add(part, _into_layer(logits, capped, options), hidden, weight)
        return (*gradients.done(), None, None)
