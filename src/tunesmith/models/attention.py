"""Attention over sequences that stand one behind the other in one row, behind transformers' interfaces.

A flat batch has no mask; what tells its sequences apart are `bounds`, which travel to every attention layer as a
keyword. Nothing of T x T is built. `varlen` attends to each sequence by itself with SDPA, `varlen_flex` to all of them
with FlexAttention (`models.flex`), `varlen_shifted` in groups (`models.shifted`). `kept` is for an
engine that generates, which hands on what knows the keys and values of all tokens before. With a mask (padded batches)
all are ordinary attention, so that one model serves training, evaluation and chat.

B rows, T positions, H heads, G heads of keys and values, D size of a head, L positions of one sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import dropout as drop_out
from torch.nn.functional import scaled_dot_product_attention

from tunesmith.core.errors import Problem, UsageError
from tunesmith.models.depth_plan import Depths
from tunesmith.models.groups import attend_in_groups
from tunesmith.models.shared import Segment, attend_shared

__all__ = [
    "FLEX",
    "KEPT",
    "OURS",
    "SHIFTED",
    "VARLEN",
    "AttentionCall",
    "Bounds",
    "Kept",
    "LayerAttention",
    "SharedBounds",
    "attention_of",
    "calls",
    "flex_attention",
    "recorded_calls",
    "register",
    "shifted_attention",
    "varlen_attention",
]

VARLEN, FLEX, SHIFTED, KEPT = "varlen", "varlen_flex", "varlen_shifted", "kept"
"""The names as an `attn_implementation` of transformers; the last one is for generation only."""
OURS = (VARLEN, FLEX, SHIFTED)
_calls = 0
_recorded: list[AttentionCall] | None = None
WINDOW_BLOCK = 512
"""Queries that are attended to at a time where a window is shorter than the sequence."""
FlatWay: TypeAlias = "Callable[[LayerAttention, Tensor, Tensor, Tensor, tuple[int, ...]], Tensor]"
"""How a flat batch is attended to: queries, keys and values as above and bounds -> [1, T, H, D]."""
_HALF = (torch.bfloat16, torch.float16)
SHORT = 192
"""Up to this length scores in half precision are written out on a CPU: the backward of its fused kernel takes two to
five times as long there (bench/attention.py)."""


class Bounds(Sequence[int]):
    """`bounds` that torch.compile hands on without a look: of a tuple it would make a graph for every length."""

    def __init__(self, bounds: Sequence[int]) -> None:
        self._bounds = tuple(bounds)

    def __getitem__(self, index: Any) -> Any:
        return self._bounds[index]

    def __len__(self) -> int:
        return len(self._bounds)


class SharedBounds(Bounds):
    """Of a row in which some sequences go on behind the beginning of another (`models.shared`)."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        super().__init__([0, *(segment.end for segment in segments)])
        self.segments = tuple(segments)


def register() -> None:
    """Make the names known to transformers."""
    from transformers import AttentionInterface, AttentionMaskInterface

    ours = {VARLEN: varlen_attention, FLEX: flex_attention, SHIFTED: shifted_attention, KEPT: kept_attention}
    for name, function in ours.items():
        AttentionInterface.register(name, function)
        AttentionMaskInterface.register(name, _varlen_mask)


def attention_of(model: Any) -> str:
    """The `attn_implementation` that a model was loaded with, or set to; transformers has no public name for it."""
    return str(getattr(model.config, "_attn_implementation", ""))


def calls() -> int:
    """How often flat attention was called in this process: a model that accepts the name and never calls it would read
    across the borders of sequences."""
    return _calls


class Kept(Protocol):
    """Keys and values of earlier tokens of several sequences, where a row holds the next tokens of each."""

    def attend(self, one: LayerAttention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Queries, keys and values of the row, as below -> [1, T, H, D]."""


class AttentionCall(NamedTuple):
    """What one call of attention computes: H heads, the sizes of keys and values, the window (None: all tokens before),
    which of its inputs need a gradient, and how tokens are chosen in a layer that computes some of them."""

    heads: int
    key_size: int
    value_size: int
    window: int | None
    trained_query: bool
    trained_key: bool
    trained_value: bool
    depths: Depths | None = None


@contextmanager
def recorded_calls() -> Iterator[list[AttentionCall]]:
    """Every call while this lasts, in this process."""
    global _recorded
    _recorded = found = []
    try:
        yield found
    finally:
        _recorded = None


def _varlen_mask(*arguments: Any, attention_mask: Tensor | None = None, **keywords: Any) -> Tensor | None:
    """No mask for a flat batch (nothing is padded, nothing cached); otherwise that of SDPA, always written out."""
    from transformers.masking_utils import sdpa_mask

    if attention_mask is None and keywords["q_length"] == keywords["kv_length"]:
        return None
    keywords["allow_is_causal_skip"] = False
    return sdpa_mask(*arguments, attention_mask=attention_mask, **keywords)  # type: ignore[no-any-return]


@torch.compiler.disable  # each number of sequences would be a graph of its own
def varlen_attention(*arguments: Any, **keywords: Any) -> tuple[Tensor, None]:
    """`_attention`, each sequence of a flat batch by itself."""
    return _attention(_in_groups, *arguments, **keywords)


@torch.compiler.disable  # what it compiles is the kernel, for any length
def flex_attention(*arguments: Any, **keywords: Any) -> tuple[Tensor, None]:
    """`_attention`, a flat batch at once. Raises UsageError in training with dropout, which FlexAttention has not."""
    return _attention(_by_flex, *arguments, **keywords)


@torch.compiler.disable
def shifted_attention(*arguments: Any, **keywords: Any) -> tuple[Tensor, None]:
    """`_attention`, in training a flat batch in groups of each sequence (`models.shifted`), else as `varlen`."""
    return _attention(_by_groups, *arguments, **keywords)


def kept_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    kept: Kept | None = None,
    **how: Any,
) -> tuple[Tensor, None]:
    """What `_attention` gives for each of the sequences that have a token in the row, with `kept` to know them by.
    Without it, `varlen_attention`. It is called for each token and layer, and never compiled: nothing is looked up."""
    if kept is None:
        return varlen_attention(module, query, key, value, attention_mask, **how)
    window = getattr(module, "varlen_window", how.get("sliding_window"))
    one = LayerAttention(module, how.get("scaling"), 0.0, window, how.get("softcap"), how.get("s_aux"))
    return kept.attend(one, query, key, value), None


def _attention(
    flat: FlatWay,
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    bounds: Sequence[int] | None = None,
    **_others: Any,
) -> tuple[Tensor, None]:
    """query [B, H, T, D], key and value [B, G, T, D], softcap and sinks `s_aux` [H] as in transformers -> [B, T, H, D].

    bounds: 0, the ends of all sequences, the last one being T; None for one sequence a row, or with a mask. A
    layer that is not handed its window has it as `varlen_window`, one that attends in chunks of a sequence has their
    size as `varlen_chunk` (`models.segments`).
    """
    global _calls
    window = getattr(module, "varlen_window", sliding_window)
    if _recorded is not None:
        trained = (query.requires_grad, key.requires_grad, value.requires_grad)
        sizes = (query.shape[1], query.shape[3], value.shape[3])
        _recorded.append(AttentionCall(*sizes, window, *trained, getattr(module, "depths", None)))
    chunk = getattr(module, "varlen_chunk", None)
    causal = attention_mask is None and query.shape[2] > 1 and getattr(module, "is_causal", True)
    one = LayerAttention(module, scaling, dropout, window if attention_mask is None else None, softcap, s_aux)
    if bounds is not None and attention_mask is None:
        _calls += 1
        assert bounds[-1] == query.shape[2], "the bounds are those of another batch"
        if isinstance(bounds, SharedBounds):
            assert flat is _in_groups, "planned for plain attention only"
            return attend_shared(one, query, key, value, bounds.segments), None
        return flat(one, query, key, value, tuple(_chunks(bounds, chunk) if chunk else bounds)), None
    if causal and chunk:
        pieces = pairwise(_chunks((0, query.shape[2]), chunk))
        parts = [one.causal(query[:, :, at:end], key[:, :, at:end], value[:, :, at:end]) for at, end in pieces]
        return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None
    return one(query, key, value, attention_mask, causal=causal).transpose(1, 2).contiguous(), None


def _chunks(bounds: Sequence[int], size: int) -> list[int]:
    """The bounds with each sequence cut after every `size` positions."""
    return [*(at for start, end in pairwise(bounds) for at in range(start, end, size)), bounds[-1]]


def _in_groups(one: LayerAttention, query: Tensor, key: Tensor, value: Tensor, bounds: tuple[int, ...]) -> Tensor:
    return attend_in_groups(one.causal, query, key, value, bounds)


def _by_groups(one: LayerAttention, query: Tensor, key: Tensor, value: Tensor, bounds: tuple[int, ...]) -> Tensor:
    from tunesmith.models.shifted import attend_shifted

    return (attend_shifted if one.training else _in_groups)(one, query, key, value, bounds)


def _by_flex(one: LayerAttention, query: Tensor, key: Tensor, value: Tensor, bounds: tuple[int, ...]) -> Tensor:
    from tunesmith.models.flex import flex_attend

    if one.training and one.dropout:
        what = "FlexAttention drops no shares of attention, and this model's config asks for that"
        fix = "flash_attn: auto, or the model's key for dropout of attention at 0"
        raise UsageError(Problem("E-TRAIN-053", what, "flash_attn: flex", f"dropout {one.dropout}", fix))
    how = {"window": one.window, "scaling": one.scaling, "softcap": one.softcap, "sinks": one.sinks}
    return flex_attend(query, key, value, bounds, **how)


class LayerAttention:
    """One sequence [B, H, L, D] at a time, with the settings of a layer."""

    def __init__(
        self,
        module: Any,
        scaling: float | None,
        dropout: float,
        window: int | None,
        softcap: float | None,
        sinks: Tensor | None,
    ) -> None:
        self.scaling, self.dropout, self.window = scaling, dropout, window
        self.softcap, self.sinks = softcap, sinks
        self.training = bool(module.training)

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, causal: bool) -> Tensor:
        attend = self._plain if self.softcap is None and self.sinks is None else self._written_out
        length = query.shape[2]
        if not causal or self.window is None or length <= self.window:
            return attend(query, key, value, mask, causal)
        parts = []
        for start in range(0, length, WINDOW_BLOCK):  # each block of queries sees what its window reaches
            end, first = min(start + WINDOW_BLOCK, length), max(0, start - self.window + 1)
            distance = torch.arange(start, end, device=query.device)[:, None] - torch.arange(
                first, end, device=query.device
            )
            seen = (distance >= 0) & (distance < self.window)
            parts.append(attend(query[:, :, start:end], key[:, :, first:end], value[:, :, first:end], seen, False))
        return torch.cat(parts, dim=2)

    def causal(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return self(query, key, value, None, causal=True)

    def next_token(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """One query of each sequence [n, H, 1, D], keys and values [n, G, L, D], a mask [n, 1, 1, L] that is added to
        the scores (None: all is seen) -> [n, H, 1, D]. Heads that share keys are queries of one head for SDPA, so that
        it reads the keys once."""
        if self.softcap is not None or self.sinks is not None:
            return self._written_out(query, key, value, mask, False)
        groups = query.shape[1] // key.shape[1]
        stacked = query.squeeze(2).unflatten(1, (-1, groups))  # [n, G, H / G, D]
        found = scaled_dot_product_attention(stacked, key, value, attn_mask=mask, scale=self.scaling)
        return found.flatten(1, 2).unsqueeze(2)

    def _plain(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        grouped = query.shape[1] != key.shape[1]
        if query.device.type == "cpu" and query.dtype in _HALF and mask is None and query.shape[2] <= SHORT:
            return self._written_out(query, key, value, mask, causal)
        return scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=causal and query.shape[2] > 1,
            scale=self.scaling,
            enable_gqa=grouped,
        )

    def _written_out(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        """With a soft cap on the scores, and sinks, which take a share of the attention and give nothing."""
        groups = query.shape[1] // key.shape[1]
        scale = self.scaling if self.scaling is not None else query.shape[-1] ** -0.5
        size = query.shape[2]
        # The heads that share keys stand below each other in one matrix: keys and values are not repeated.
        stacked = (query * scale).unflatten(1, (-1, groups)).flatten(2, 3)  # [B, G, H / G * L, D]
        scores = (stacked @ key.transpose(2, 3)).unflatten(2, (groups, size)).flatten(1, 2)  # [B, H, L, L]
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        if causal:
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if mask is not None:
            hidden = mask.logical_not() if mask.dtype == torch.bool else None
            scores = scores + mask if hidden is None else scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
        if self.sinks is not None:
            sinks = self.sinks.reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1)
            shares = torch.cat([scores, sinks.to(scores.dtype)], dim=-1).softmax(-1, dtype=torch.float32)[..., :-1]
        else:
            shares = scores.softmax(-1, dtype=torch.float32)
        shares = drop_out(shares.to(value.dtype), self.dropout, self.training)
        return (shares.unflatten(1, (-1, groups)).flatten(2, 3) @ value).unflatten(2, (groups, size)).flatten(1, 2)
