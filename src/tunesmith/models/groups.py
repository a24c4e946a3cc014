"""Short sequences of a flat batch, put together for one call of attention.

A call for each of many short sequences costs more than what it computes. Sequences of similar length are stacked into
rows of the longest, filled up at the end: under a causal mask no token sees what comes after it, so what fills a row is
never seen, and what is computed there is thrown away. Both ways are pure gathers, in forward and in backward.

T positions, n sequences of at most L positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

__all__ = ["attend_in_groups"]

ALONE = 512
"""Sequences of this length are attended to by themselves: there is enough to compute."""
FULL = 0.75
"""Share of the longest sequence that every other of a group has at least."""

Attend: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries [n, H, L, D], keys and values [n, G, L, D] -> [n, H, L, D], causal."""


class _Group(NamedTuple):
    """`sources` [n * L]: position in the batch of each place; `places` [tokens]: the places that are filled, `targets`
    [tokens]: their positions in the batch. A sequence by itself is `span`, and needs no gather."""

    count: int
    span: tuple[int, int] | None
    sources: Tensor | None = None
    places: Tensor | None = None
    targets: Tensor | None = None


def attend_in_groups(attend: Attend, query: Tensor, key: Tensor, value: Tensor, bounds: tuple[int, ...]) -> Tensor:
    """query [1, H, T, D], key and value [1, G, T, D] -> [1, T, H, D], each sequence between two bounds by itself."""
    groups, order = _grouped(bounds, query.device)
    if len(groups) == 1 and groups[0].span is not None:
        return attend(query, key, value).transpose(1, 2)
    parts = []
    for group in groups:
        if group.span is not None:
            start, end = group.span
            alone = attend(query[:, :, start:end], key[:, :, start:end], value[:, :, start:end])
            parts.append(alone.transpose(1, 2)[0])
            continue
        stacked = [_stack(one, group) for one in (query, key, value)]
        found = attend(*stacked).transpose(1, 2).flatten(0, 1)  # [n * L, H, D]
        parts.append(_Take.apply(found, group.places, None))
    joined = parts[0] if len(parts) == 1 else torch.cat(parts)
    return (joined if order is None else _Take.apply(joined, order[0], order[1]))[None]


def _stack(tensor: Tensor, group: _Group) -> Tensor:
    """[1, H, T, D] -> [n, H, L, D]."""
    taken: Tensor = _Take.apply(tensor[0].transpose(0, 1), group.sources, (group.places, group.targets))
    return taken.unflatten(0, (group.count, -1)).transpose(1, 2)


class _Take(torch.autograd.Function):  # type: ignore[misc]  # mypy does not look into torch
    """rows[index]. Backward is a gather as well: `back` is the index that undoes it, or (places, targets) of those rows
    that count; None: what was not taken has no gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, back: Any) -> Tensor:
        ctx.index, ctx.back, ctx.rows = index, back, rows.shape[0]
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        if isinstance(ctx.back, Tensor):
            return gradient.index_select(0, ctx.back), None, None
        found = gradient.new_zeros(ctx.rows, *gradient.shape[1:])
        if ctx.back is None:
            return found.index_copy_(0, ctx.index, gradient), None, None
        places, targets = ctx.back
        return found.index_copy_(0, targets, gradient.index_select(0, places)), None, None


@lru_cache(maxsize=16)
def _grouped(bounds: tuple[int, ...], device: torch.device) -> tuple[list[_Group], tuple[Tensor, Tensor] | None]:
    """The groups, and (index, its inverse) that brings their tokens back into the order of the batch; None: they are
    in order. The layers of a model ask for the same batch one after the other. All of it is counted on the CPU, so
    nothing waits for a device."""
    spans = list(pairwise(bounds))
    groups = [_group([spans[number] for number in numbers]) for numbers in _similar(spans)]
    taken = torch.cat([_positions(group) for group in groups])
    there = [_Group(one.count, one.span, *(_to(device, index) for index in one[2:])) for one in groups]
    if bool((taken[1:] > taken[:-1]).all()):
        return there, None
    return there, (_to(device, taken.argsort()), _to(device, taken))


def _to(device: torch.device, index: Any) -> Any:
    return None if index is None else index.to(device, non_blocking=True)


def _similar(spans: list[tuple[int, int]]) -> Iterator[list[int]]:
    """Numbers of sequences that go together; those of a group in the order of the batch."""
    lengths = [end - start for start, end in spans]
    group: list[int] = []
    for number in sorted(range(len(spans)), key=lambda one: (-lengths[one], one)):
        if group and (lengths[group[0]] >= ALONE or lengths[number] < FULL * lengths[group[0]]):
            yield sorted(group)
            group = []
        group.append(number)
    yield sorted(group)


def _group(spans: list[tuple[int, int]]) -> _Group:
    if len(spans) == 1:
        return _Group(1, spans[0])
    longest = max(end - start for start, end in spans)
    starts = torch.tensor([start for start, _ in spans])
    lengths = torch.tensor([end - start for start, end in spans])
    place = torch.arange(longest)
    filled = place < lengths[:, None]  # [n, L]
    sources = (starts[:, None] + torch.minimum(place, lengths[:, None] - 1)).flatten()
    places = filled.flatten().nonzero().flatten()
    return _Group(len(spans), None, sources, places, sources[places])


def _positions(group: _Group) -> Tensor:
    if group.span is not None:
        return torch.arange(*group.span)
    assert group.targets is not None
    return group.targets
