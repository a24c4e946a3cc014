"""Floating-point operations that a training step needs, from the shapes of a model's own modules.

Counted are products of matrices, a multiplication and an addition for each pair of numbers:

    layer with N weights      forward 2 N a token; backward 2 N for the gradient of the weights where they are trained,
                              and 2 N for that of its input where something before it is trained
    experts                   the same with the weights of as many experts as a token is sent to (`models.mixture`),
                              whatever the code computes: some types compute all of them
    output layer              the same, at trained positions; everywhere if the logits of all positions are computed;
                              of a reward model once for each sequence
    attention, a head         forward 2 (K + V) for each pair of a query and a key that it sees, K and V being the sizes
                              of keys and values; backward up to twice that

This is what the mathematics asks for, whatever the way of computing it: padding is no work, and activations that are
computed a second time count once. Not counted are products of two activations outside attention (recurrent layers
have them), convolutions, and everything that is done number by number. Attention in chunks counts as over the whole.
Of a model that sees or hears it is what reads text, media's tokens included; encoders and projectors are not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from tunesmith.models.attention import SHIFTED, VARLEN, AttentionCall, attention_of, recorded_calls, register
from tunesmith.models.depth_plan import Depths, told_depths
from tunesmith.models.heads import output_layer, reward_head
from tunesmith.models.loss_forward import language_model_of
from tunesmith.models.mixture import Mixture, expert_modules, mixture_of, part_of_one
from tunesmith.models.quantization.hqq import HQQLinear
from tunesmith.models.seeing import set_attention
from tunesmith.models.shifted import group_bounds

__all__ = ["TokenFlops", "measure_flops", "visible_pairs"]

_TOKENS = 5  # of the sequence that is read to see the shapes
_TOKENS_TO_CHOOSE_FROM = 64  # where layers compute a share of them: it should be one of many


@dataclass(frozen=True, slots=True)
class TokenFlops:
    """Forward and backward together, or forward alone. `layers` a token, `head` a position where the output layer runs,
    `attention` a visible pair, by the length of the window (None: all tokens before). `head_everywhere`: the output
    layer runs at every position, not only at trained ones; `head_at_ends`: once for each sequence. `attention` is empty
    where the model's cannot be seen."""

    layers: float
    head: float
    attention: Mapping[int | None, float]
    head_everywhere: bool
    shifted: bool = False
    """Whether half of the heads attend within groups, and half within shifted ones (`models.shifted`)."""
    routed: Mapping[Depths, float] = field(default_factory=dict)
    """The same as `attention`, of layers in which only tokens that were chosen see each other (`models.depths`)."""
    head_at_ends: bool = False

    def of(self, lengths: np.ndarray, trained: int, before: np.ndarray | None = None) -> float:
        """FLOPs of a batch of sequences with these lengths [K] and so many trained tokens together. before [K]: tokens
        of another sequence that each goes on behind (None: of none)."""
        tokens = int(lengths.sum())
        parts = [lengths]
        if self.shifted:
            parts = [np.diff(bounds) for bounds in group_bounds([0, *np.cumsum(lengths).tolist()])]
        seen = {window: sum(visible_pairs(part, window) for part in parts) / len(parts) for window in self.attention}
        if before is not None and before.any():
            assert not self.shifted, "groups go on behind nothing"
            seen = {one: visible_pairs(before + lengths, one) - visible_pairs(before, one) for one in self.attention}
        pairs = sum(each * seen[window] for window, each in self.attention.items())
        for depths, each in self.routed.items():
            pairs += each * visible_pairs(np.array([depths.chosen(int(length)) for length in lengths]))
        return self.layers * tokens + self.of_head(lengths, trained) + pairs

    def of_head(self, lengths: np.ndarray, trained: int) -> float:
        """The part of it that the output layer has."""
        if self.head_at_ends:
            return self.head * len(lengths)
        return self.head * (int(lengths.sum()) if self.head_everywhere else trained)


def visible_pairs(lengths: np.ndarray, window: int | None = None) -> int:
    """Pairs of a token and one that it sees, itself or earlier, in sequences of these lengths [K]; with a window of w
    it sees the last w only."""
    lengths = lengths.astype(np.int64)
    if window is None:
        return int((lengths * (lengths + 1) // 2).sum())
    inside = np.minimum(lengths, window)
    return int((inside * (inside + 1) // 2 + (lengths - inside) * window).sum())


def measure_flops(model: Any, *, shapes_only: bool = False, backward: bool = True) -> TokenFlops:
    """Read one short sequence with gradients, as the run will, and see which products there are and what of them
    needs a gradient. Nothing of it is left: no gradient, no state of chance, no setting. `backward` False: what a
    forward without gradients costs.

    shapes_only: the model is on the device meta. Then it gets a finished mask, as making one asks for numbers, and its
    experts are not computed, as which ones would be asks for numbers too."""
    language_model = language_model_of(model)
    count = _TOKENS if told_depths(language_model.config) is None else _TOKENS_TO_CHOOSE_FROM
    asked: dict[str, Any] = {"count": count, "shapes_only": shapes_only, "backward": backward}
    training = model.training
    model.eval()
    try:
        try:
            products, calls = _read(model, language_model, masked=shapes_only, **asked)
        except (AttributeError, TypeError):  # the model's own code looks into a mask, and our attention needs none
            products, calls = _read(model, language_model, masked=True, **asked)
    finally:
        model.train(training)
    attention: Counter[int | None] = Counter()
    routed: Counter[Depths] = Counter()
    for call in calls:
        if call.depths is None:
            attention[call.window] += _of_attention(call)
        else:
            routed[call.depths] += _of_attention(call)
    rewards = reward_head(language_model) is not None
    everywhere = language_model.loss_forward.way == "full" and not rewards
    shifted = attention_of(language_model) == SHIFTED
    each = products.layers / count, products.head / count
    return TokenFlops(*each, dict(attention), everywhere, shifted, dict(routed), head_at_ends=rewards)


def _read(
    model: Any, language_model: Any, *, count: int, masked: bool, shapes_only: bool, backward: bool
) -> tuple[_Products, list[AttentionCall]]:
    """One forward of `count` tokens; `masked`: with a finished mask."""
    head = output_layer(language_model)
    device = next(model.parameters()).device
    mixture = mixture_of(language_model.config)
    heads = set() if head is None else set(head.modules())
    products = _Products(heads, mixture, count, shapes_only=shapes_only, backward=backward)
    with products.watching(model), _seen_attention(language_model) as calls, torch.set_grad_enabled(backward):
        mask = {"attention_mask": torch.zeros(1, 1, count, count, device=device)} if masked else {}
        model(input_ids=torch.arange(count, device=device)[None], use_cache=False, **mask)
    return products, calls


def _of_attention(call: AttentionCall) -> int:
    """FLOPs of a visible pair, all heads together. Backward: the gradients of the values, of the shares of attention,
    of queries and of keys are a product each."""
    forward = call.key_size + call.value_size
    backward = call.value_size * (call.trained_value + (call.trained_query or call.trained_key))
    backward += call.key_size * (call.trained_query + call.trained_key)
    return 2 * call.heads * (forward + backward)


class _Products:
    """FLOPs of the products with weights in one forward pass and the backward pass that would follow, if one does."""

    def __init__(
        self, head: set[Any], mixture: Mixture | None, count: int, *, shapes_only: bool, backward: bool
    ) -> None:
        self._head, self._mixture, self._count, self._shapes_only = head, mixture, count, shapes_only
        self._backward = backward
        self._experts: set[Any] = set()
        self._shared: set[Any] = set()
        self._in_dora = False
        self.layers, self.head = 0.0, 0.0

    @contextmanager
    def watching(self, model: Any) -> Iterator[None]:
        if self._mixture is not None:
            self._experts = {module for _, module in expert_modules(model)}
            self._shared = {module for name, module in model.named_modules() if "shared" in name.rsplit(".", 1)[-1]}
        within = {inner for module in self._experts for inner in module.modules() if inner is not module}
        hooks = [
            module.register_forward_pre_hook(self._see, with_kwargs=True)
            for module in model.modules()
            if module in self._experts
            or (
                module not in within
                and not isinstance(module, nn.Embedding)
                and any(one.ndim in (2, 3) for one in _own(module))
            )
        ]
        replaced = self._experts if self._shapes_only else set()
        for module in replaced:
            module.forward = _shape_of_experts(module)
        for module in model.modules():
            for norm in getattr(module, "lora_magnitude_vector", {}).values():
                hooks.append(norm.register_forward_pre_hook(lambda *_: setattr(self, "_in_dora", True)))
                hooks.append(norm.register_forward_hook(lambda *_: setattr(self, "_in_dora", False)))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for module in replaced:
                del module.forward

    def _see(self, module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        given = [value for value in (*arguments, *keywords.values()) if isinstance(value, Tensor)]
        source = next((value for value in given if value.is_floating_point()), None)
        if source is None or not source.ndim or isinstance(module, nn.Conv1d):
            return
        if self._in_dora and source.ndim == 2:  # an identity, by which the adapter is asked for its weights
            return
        if module in self._experts:
            found = self._of_mixture(module, source)
        else:
            found = self._of_matrix(module, source) + self._of_experts(module, source, given)
        if module in self._head:
            self.head += found
        else:
            self.layers += found

    def _of_matrix(self, module: Any, source: Tensor) -> float:
        """A layer with one matrix: Linear, its transposed kin of GPT-2, a router."""
        weight = module.packed if isinstance(module, HQQLinear) else getattr(module, "weight", None)
        if not isinstance(weight, nn.Parameter):
            return 0.0
        size = module.in_features * module.out_features if isinstance(module, nn.Linear) else weight.numel()
        width = module.in_features if isinstance(module, nn.Linear) else source.shape[-1]
        if not isinstance(module, nn.Linear) and (weight.ndim != 2 or width not in weight.shape):
            return 0.0
        size //= getattr(module, "n_groups", 1)  # a part of the input for a part of the output each
        return self._product(source.numel() // width * size, weight.requires_grad, source.requires_grad)

    def _product(self, multiplications: float, of_weights: bool, of_input: bool) -> float:
        return 2.0 * multiplications * (1 + self._backward * (of_weights + of_input))

    def _of_mixture(self, module: Any, source: Tensor) -> float:
        """A module that holds the routed experts of a layer, [E, ...] each, or E times as many rows."""
        assert self._mixture is not None
        rows = self._count * self._mixture.chosen
        every = [one for inner in module.modules() for one in (*_own(inner), *_adapted(inner))]
        matrices = [one for one in every if one.ndim == 3 or (one.ndim == 2 and one.shape[0] > self._mixture.experts)]
        trained = any(one.requires_grad for one in matrices)
        return sum(
            self._product(rows * part_of_one(one, self._mixture), one.requires_grad, source.requires_grad or trained)
            for one in matrices
        )

    def _of_experts(self, module: Any, source: Tensor, given: list[Tensor]) -> float:
        """A module with several matrices [E, ...]. Of shared experts a token meets all. Of others, where no config
        tells how many, it goes to as many as the table of chosen experts [tokens, k] is wide; without a table each row
        of the input is one that was sent."""
        matrices = [one for one in (*_own(module), *_adapted(module)) if one.ndim == 3]
        chosen = next((one for one in given if not one.is_floating_point() and one.ndim == 2), None)
        rows = source.numel() // source.shape[-1] if chosen is None else chosen.numel()
        trained = any(one.requires_grad for one in matrices)
        return sum(
            self._product(
                rows * (one.numel() if module in self._shared else one.numel() // one.shape[0]),
                one.requires_grad,
                source.requires_grad or trained,
            )
            for one in matrices
        )


def _own(module: Any) -> list[nn.Parameter]:
    return list(module.parameters(recurse=False))


def _adapted(module: Any) -> list[Tensor]:
    """Weights that an adapter replaces while the forward runs, as PEFT does with experts."""
    return [getattr(module, name) for name in module.parametrizations] if is_parametrized(module) else []


def _shape_of_experts(module: Any) -> Callable[..., Tensor]:
    """A forward whose output depends on the same as that of experts, and has their shape."""

    def forward(hidden: Tensor, *_: Any, **__: Any) -> Tensor:
        for one in module.parameters():
            hidden = hidden + one.reshape(-1)[0]
        return hidden

    return forward


@contextmanager
def _seen_attention(language_model: Any) -> Iterator[list[AttentionCall]]:
    """The calls of attention, seen by ours, which the model takes for as long."""
    before = attention_of(language_model)
    if before != VARLEN:
        register()
        with suppress(ValueError):  # a model that is bound to its own: nothing is seen
            set_attention(language_model, VARLEN)
    try:
        with recorded_calls() as calls:
            yield calls
    finally:
        if before != attention_of(language_model):
            set_attention(language_model, before)
