"""The chunked loss against torch's own on whole logits, and three numbers by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, linear

from tests.token_losses import entropy_of_likeliest
from tunesmith.losses import linear_cross_entropy as module
from tunesmith.losses.asft import Anchor
from tunesmith.losses.linear_cross_entropy import Head, linear_cross_entropy, linear_log_probs
from tunesmith.losses.token import LogProbs, TokenLoss, TokenStatistics, dft, eaft


def inputs(tokens: int, size: int, vocabulary: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """hidden [N, H], weight [V, H], bias [V], targets [N], weights [N]"""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((tokens, size), (vocabulary, size), (vocabulary,))
    found = [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]
    return [*found, torch.randint(vocabulary, (tokens,), generator=generator), torch.rand(tokens, generator=generator)]


def whole_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, scale: float, cap: float | None) -> Tensor:
    logits = linear(hidden, weight, bias).float() * scale
    return logits if cap is None else cap * torch.tanh(logits / cap)


def test_three_numbers_by_hand() -> None:
    """One hidden number of 1 and weights ln 1, ln 2, ln 5: probabilities 1/8, 2/8, 5/8. The gradient of the hidden
    number is sum_v dl_v * weight_v."""
    weight = torch.tensor([[0.0], [math.log(2)], [math.log(5)]])
    hidden = torch.ones(1, 1, requires_grad=True)
    loss, told = linear_cross_entropy(hidden, Head(weight), torch.tensor([1]))
    assert loss.item() == pytest.approx(math.log(4), rel=1e-6)
    assert told.log_probs.tolist() == pytest.approx([-math.log(4)], rel=1e-6)
    assert told.correct.tolist() == [False]
    loss.backward()
    assert hidden.grad is not None
    assert hidden.grad.item() == pytest.approx((2 / 8 - 1) * math.log(2) + 5 / 8 * math.log(5), rel=1e-6)


@settings(deadline=None)
@given(
    st.integers(0, 20),
    st.integers(1, 9),
    st.integers(2, 70),
    st.integers(1, 8),
    st.booleans(),
    st.sampled_from([1.0, 0.25, 3.0]),
    st.sampled_from([None, 2.0, 30.0]),
    st.sampled_from([0.0, 0.1]),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_loss_and_gradients_equal_those_of_whole_logits(
    tokens: int,
    size: int,
    vocabulary: int,
    rows: int,
    with_bias: bool,
    scale: float,
    cap: float | None,
    smoothing: float,
    weighted: bool,
    seed: int,
) -> None:
    hidden, weight, bias, targets, weights = inputs(tokens, size, vocabulary, seed)
    used = [hidden, weight, *([bias] if with_bias else [])]
    logits = whole_logits(hidden, weight, bias if with_bias else None, scale, cap)
    each = cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
    expected = (each * weights if weighted else each).sum()
    loss, told = linear_cross_entropy(
        hidden,
        Head(weight, bias if with_bias else None, scale, cap),
        targets,
        weights=weights if weighted else None,
        how=TokenLoss(smoothing, likeliest=min(vocabulary, 5)),
        rows=rows,
        entropy=True,
    )
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    wanted = torch.autograd.grad(expected * 0.3, used)
    norm = torch.sqrt(sum((one**2).sum() for one in wanted)).item()  # type: ignore[arg-type]
    for one, other in zip(torch.autograd.grad(loss * 0.3, used), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * norm + 1e-7)
    chances = logits.softmax(-1)
    torch.testing.assert_close(told.log_probs, logits.log_softmax(-1)[range(tokens), targets], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(told.entropy, -(chances * logits.log_softmax(-1)).sum(-1), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(told.top_entropy, entropy_of_likeliest(logits, 5), rtol=1e-4, atol=1e-5)
    assert torch.equal(told.correct, logits.argmax(-1) == targets)


@settings(deadline=None)
@given(
    st.integers(0, 20),
    st.integers(2, 70),
    st.integers(1, 8),
    st.sampled_from([1.0, 0.25]),
    st.sampled_from([None, 2.0]),
    st.sampled_from([0.0, 0.1]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_an_anchor_adds_the_divergence_of_whole_logits(
    tokens: int,
    vocabulary: int,
    rows: int,
    scale: float,
    cap: float | None,
    smoothing: float,
    weighted: bool,
    factors: bool,
    seed: int,
) -> None:
    """The reference is another head over other hidden states, of which `rows` rows of logits are asked for at once."""
    hidden, weight, bias, targets, weights = inputs(tokens, 6, vocabulary, seed)
    other = [one.detach() for one in inputs(tokens, 5, vocabulary, seed + 1)[:2]]
    reference = whole_logits(*other, None, 1.0, None)
    asked: list[int] = []

    def few(part: slice) -> Tensor:
        asked.append(part.stop - part.start)
        return reference[part].clone()

    logits = whole_logits(hidden, weight, bias, scale, cap)
    each = cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
    if factors:
        each = each * logits.detach().log_softmax(-1)[range(tokens), targets].exp()
    apart = kl_div(logits.log_softmax(-1), reference.log_softmax(-1), reduction="none", log_target=True).sum(-1)
    total = each + 0.3 * apart
    expected = (total * weights if weighted else total).sum()
    how = TokenLoss(smoothing, dft().weigh if factors else None, anchor=Anchor(0.3, few))
    given = weights if weighted else None
    loss, told = linear_cross_entropy(
        hidden, Head(weight, bias, scale, cap), targets, weights=given, how=how, rows=rows
    )
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(told.divergence, apart, rtol=1e-4, atol=1e-5)
    assert sum(asked) == tokens
    assert max(asked) <= rows
    used = (hidden, weight, bias)
    wanted = torch.autograd.grad(expected * 0.3, used)
    norm = torch.sqrt(sum((one**2).sum() for one in wanted)).item()  # type: ignore[arg-type]
    for one, true in zip(torch.autograd.grad(loss * 0.3, used), wanted, strict=True):
        torch.testing.assert_close(one, true, rtol=1e-4, atol=1e-5 * norm + 1e-7)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("cap", [None, 5.0])
def test_log_probabilities_have_gradients_of_their_own(cap: float | None, frozen: bool) -> None:
    hidden, weight, bias, targets, upstream = inputs(23, 8, 61)
    if frozen:
        weight, bias = weight.detach(), bias.detach()
    found, told = linear_log_probs(
        hidden, Head(weight, bias, 0.5, cap), targets, how=LogProbs(entropy=True, collision=True), rows=7
    )
    each = whole_logits(hidden, weight, bias, 0.5, cap).log_softmax(-1)
    expected = each[range(23), targets]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(told.entropy, -(each.exp() * each).sum(-1), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(told.collision, each.exp().square().sum(-1).log())
    assert torch.equal(told.correct, each.argmax(-1) == targets)
    used = (hidden,) if frozen else (hidden, weight, bias)
    pairs = zip(
        torch.autograd.grad(found @ upstream, used), torch.autograd.grad(expected @ upstream, used), strict=True
    )
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden, weight, bias, targets, _ = inputs(9, 4, 31)
    loss, _ = linear_cross_entropy(hidden, Head(weight.detach(), bias.detach()), targets)
    loss.backward()
    assert hidden.grad is not None
    assert weight.grad is None


def test_a_tied_head_adds_to_the_gradient_of_the_embedding() -> None:
    _, weight, _, targets, _ = inputs(9, 4, 31)
    tokens = torch.arange(9)
    loss, _ = linear_cross_entropy(weight[tokens], Head(weight), targets, rows=4)
    expected = cross_entropy(weight[tokens] @ weight.T, targets, reduction="sum")
    torch.testing.assert_close(*(torch.autograd.grad(one, weight)[0] for one in (loss, expected)), rtol=1e-4, atol=1e-5)


def test_factors_from_statistics_are_not_differentiated() -> None:
    hidden, weight, _, targets, weights = inputs(12, 6, 40)

    def factors(told: TokenStatistics) -> Tensor:
        assert told.top_entropy is not None
        return told.log_probs.exp() + told.top_entropy

    how = TokenLoss(weigh=factors, likeliest=7)
    loss, _ = linear_cross_entropy(hidden, Head(weight), targets, weights=weights, how=how, rows=5)
    all_log_probs = linear(hidden, weight).log_softmax(-1)
    log_probs = all_log_probs[range(12), targets]
    constant = log_probs.detach().exp() + entropy_of_likeliest(all_log_probs, 7)
    expected = -(log_probs * constant * weights).sum()
    torch.testing.assert_close(loss, expected)
    used = (hidden, weight)
    for one, other in zip(torch.autograd.grad(loss, used), torch.autograd.grad(expected, used), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_half_precision_is_summed_in_float32() -> None:
    """bfloat16 logits are off by a part in 256 already; summing over the vocabulary must not add to that."""
    hidden, weight, bias, targets, _ = inputs(64, 32, 1000, dtype=torch.bfloat16)
    loss, told = linear_cross_entropy(hidden, Head(weight, bias), targets, rows=10)
    logits = linear(hidden, weight, bias).float()
    assert loss.dtype == told.log_probs.dtype == torch.float32
    torch.testing.assert_close(loss, cross_entropy(logits, targets, reduction="sum"), rtol=1e-5, atol=1e-3)
    gradient = torch.autograd.grad(loss, (hidden, weight))
    exact = torch.autograd.grad(cross_entropy(logits, targets, reduction="sum"), (hidden, weight))
    for one, other in zip(gradient, exact, strict=True):
        assert one.dtype == torch.bfloat16
        assert (one - other).float().norm() < 0.02 * other.float().norm()


def test_under_autocast_the_layer_multiplies_in_its_type() -> None:
    hidden, weight, _, targets, _ = inputs(16, 32, 200)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = linear_cross_entropy(hidden, Head(weight), targets, rows=5)
        logits = linear(hidden, weight)
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(loss, cross_entropy(logits.float(), targets, reduction="sum"), rtol=1e-6, atol=1e-4)
    assert [one.dtype for one in torch.autograd.grad(loss, (hidden, weight))] == [torch.float32] * 2


@pytest.mark.parametrize("trains_head", [False, True])
def test_no_tensor_of_all_logits_is_ever_made(trains_head: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in forward nor in backward: the largest tensor that any operation gives is a chunk, or the weight's."""
    from torch.utils._python_dispatch import TorchDispatchMode

    sizes: list[int] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = function(*args, **(kwargs or {}))
            sizes.extend(
                one.numel() for one in (found if isinstance(found, tuple) else (found,)) if isinstance(one, Tensor)
            )
            return found

    monkeypatch.setitem(module.CHUNK_BYTES, "cpu", 4 * 500 * 16)
    hidden, weight, _, targets, _ = inputs(200, 8, 500)
    with Watch():
        head = Head(weight if trains_head else weight.detach())
        loss, _ = linear_cross_entropy(hidden, head, targets, entropy=True, how=eaft(0.5))
        loss.backward()
    assert max(sizes) == 16 * 500, "16 rows of 500 logits"


def test_without_gradients_none_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a trained output layer, in an evaluation: autograd says of its weight that it needs one."""
    weight, hidden = torch.randn(50, 8).requires_grad_(), torch.randn(6, 8).requires_grad_()
    targets = torch.arange(6)
    expected = linear_cross_entropy(hidden, Head(weight), targets)[0]

    def refuse(*_arguments: object) -> None:
        raise AssertionError("a gradient is computed")

    monkeypatch.setattr(module._Gradients, "add", refuse)
    with torch.no_grad():
        assert torch.equal(linear_cross_entropy(hidden, Head(weight), targets)[0], expected)
