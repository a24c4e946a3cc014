"""Modules that read a flat batch one sequence at a time, because nothing tells them where the sequences end.

A recurrent mixer carries its state along the row, and a model's own attention has no place for borders. Each such
module (`Family.per_sequence`) is called once for every sequence, and what it gives is joined again; all else of the
model reads the row at once.

B rows (1 in a flat batch), T positions, H hidden.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tunesmith.models.rope import OF_THE_LONGEST

if TYPE_CHECKING:
    from tunesmith.models.family import Family

__all__ = ["Segments", "fit", "tell_limit"]

# What tells a flat batch apart. A module that is called for one sequence is told nothing of the others.
_BORDERS = ("bounds", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")
# The axes of arguments that run over the positions of the row, beside axis 1 of the first argument.
_AXES = {
    **dict.fromkeys(
        ("position_embeddings", "position_ids", "residual", "input_ids", "key_hidden_states", "value_hidden_states"),
        (1,),
    ),
    "attention_mask": (-2, -1),
    "alibi": (-1,),
}


def fit(model: Any, family: Family, trunk: Any) -> Segments:
    """Have a loaded model read flat batches as its family does. `trunk`: all of it but the output layer. A batch
    without `bounds` is read as before."""
    if family.mask_only is not None:
        tell_limit(model, family.mask_only)
    segments = Segments(model, trunk)
    modules = [module for module in model.modules() if type(module).__name__ in family.per_sequence]
    for module in modules:
        module.forward = _PerSequence(module.forward, segments)
    for module in _of_the_longest(model):
        module.forward = _PerSequence(_afresh(module), segments)
        modules.append(module)
    if modules:
        model.forward = segments
        trunk.register_forward_hook(segments.remember)
    return segments


def _of_the_longest(model: Any) -> list[Any]:
    """Modules that compute rotary positions by the longest sequence they are shown."""
    kinds = [(module, getattr(module, "rope_type", None)) for module in model.modules()]
    told = [(module, set(kind.values()) if isinstance(kind, dict) else {kind}) for module, kind in kinds]
    return [module for module, found in told if found.intersection(OF_THE_LONGEST)]


def _afresh(module: Any) -> Callable[..., Any]:
    """The forward of such a module, for which each call is the first: transformers' `dynamic` goes on with the
    frequencies of the longest sequence that it has ever seen."""
    inner, begin = module.forward, {name: value for name, value in vars(module).items() if "max_seq_len_cached" in name}
    frequencies = {
        name: value.clone()
        for name, value in module.named_buffers(recurse=False)
        if name.endswith("inv_freq") and not name.endswith("original_inv_freq")
    }

    @functools.wraps(inner)
    def forward(*arguments: Any, **keywords: Any) -> Any:
        for name, value in begin.items():
            setattr(module, name, value)
        for name, value in frequencies.items():
            getattr(module, name).data = value.clone()
        return inner(*arguments, **keywords)

    return forward


# key of config.json: (the type of the layers that it concerns, what `models.attention` asks such a layer for)
_LIMITS = {
    "sliding_window": ("sliding_attention", "varlen_window"),
    "attention_chunk_size": ("chunked_attention", "varlen_chunk"),
}


def tell_limit(model: Any, key: str) -> None:
    """Tell each layer what a key of the config limits, where transformers writes it into the mask only."""
    kind, name = _LIMITS[key]
    kinds, limit = getattr(model.config, "layer_types", None), getattr(model.config, key)
    for module in model.modules():
        if hasattr(module, "is_causal") and hasattr(module, "layer_idx"):
            concerned = limit and (kinds is None or kinds[module.layer_idx] == kind)
            setattr(module, name, limit if concerned else None)


class Segments:
    """The forward of a model with modules that are called per sequence. It holds the `bounds` of the batch that the
    model reads, for modules to which no argument brings them: 0, the ends of all sequences; None: one sequence a row.

    The bounds stay until the next forward, because activations may be computed again in backward. Several forwards
    may precede their backward: as soon as a gradient comes back to one of them, its bounds are set again.
    """

    def __init__(self, model: Any, trunk: Any) -> None:
        self.forward: Callable[..., Any] = model.forward
        self.bounds: Sequence[int] | None = None
        self.runs = 0
        """How often a module was called per sequence."""
        self._unknown = [name for name in (*_BORDERS, "position_ids") if not _takes(name, model, trunk)]
        self.__signature__ = inspect.signature(model.forward)

    def __call__(self, *arguments: Any, **inputs: Any) -> Any:
        before, self.bounds = self.bounds, inputs.get("bounds")
        known = inputs if self.bounds is None else _without(self._unknown, inputs)
        try:
            return self.forward(*arguments, **known)
        finally:
            if not torch.is_grad_enabled():  # this forward has no backward; one before it may have
                self.bounds = before

    def remember(self, trunk: Any, arguments: Any, output: Any) -> None:
        """After the forward of the trunk."""
        hidden, bounds = output[0], self.bounds
        if hidden.requires_grad:
            hidden.register_hook(lambda gradient: self._again(bounds))

    def _again(self, bounds: Sequence[int] | None) -> None:
        self.bounds = bounds


class _PerSequence:
    """The forward of one module. What it gives is [B, T, ...], or a tuple that begins so. Raises ValueError where the
    module is not given the row, as may be in another release of transformers."""

    def __init__(self, forward: Callable[..., Any], segments: Segments) -> None:
        self.forward, self.segments = forward, segments
        self._names = tuple(inspect.signature(forward).parameters)

    @torch.compiler.disable  # each number of sequences would be a graph of its own
    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        bounds = self.segments.bounds
        if bounds is None:
            return self.forward(*arguments, **keywords)
        named = {**dict(zip(self._names, arguments, strict=False)), **_without(_BORDERS, keywords)}
        length = named[self._names[0]].shape[1]
        if bounds[-1] != length:
            raise ValueError(f"bounds of {bounds[-1]} positions, and a module that is given {length}")
        self.segments.runs += 1
        axes = {**_AXES, self._names[0]: (1,)}
        parts = []
        self.segments.bounds = None  # modules within see one sequence
        try:
            for start, end in pairwise(bounds):
                own = {name: _cut(value, axes.get(name, ()), length, start, end) for name, value in named.items()}
                parts.append(self.forward(**own))
        finally:
            self.segments.bounds = bounds
        if isinstance(parts[0], tuple | list):
            return type(parts[0])(_joined(pieces, bounds) for pieces in zip(*parts, strict=True))
        return _joined(parts, bounds)


def _joined(pieces: Sequence[Any], bounds: Sequence[int]) -> Any:
    """[B, T, ...] of the sequences' [B, L, ...]; that of the first sequence where they are no such tensors, which is
    what nobody reads in training: shares of attention, states to go on from."""
    lengths = [end - start for start, end in pairwise(bounds)]
    if all(
        isinstance(piece, Tensor) and piece.shape[1:2] == (length,)
        for piece, length in zip(pieces, lengths, strict=True)
    ):
        return torch.cat(list(pieces), dim=1)
    return pieces[0]


def _cut(value: Any, axes: Sequence[int], length: int, start: int, end: int) -> Any:
    """The part of one sequence of what runs over the positions of the row, tensors or tuples and mappings of them."""
    if isinstance(value, tuple):
        return tuple(_cut(one, axes, length, start, end) for one in value)
    if isinstance(value, dict):
        return {name: _cut(one, axes, length, start, end) for name, one in value.items()}
    if isinstance(value, Tensor):
        for axis in axes:
            if -value.ndim <= axis < value.ndim and value.shape[axis] == length:
                value = value.narrow(axis, start, end - start)
    return value


def _takes(name: str, *modules: Any) -> bool:
    """Whether the classes of all modules accept a keyword of this name."""
    found = [inspect.signature(type(module).forward).parameters for module in modules]
    return all(name in one or any(p.kind is p.VAR_KEYWORD for p in one.values()) for one in found)


def _without(names: Sequence[str], keywords: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in keywords.items() if name not in names}
