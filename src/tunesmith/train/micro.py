"""A collated batch in parts that memory has room for.

Sequences stay whole, the two of a pair stay together, and the parts in their order hold all of the batch. Each part is
what the collator makes of its samples alone. Objectives are sums, so loss and gradient of the parts are those of the
batch.

B rows, T positions, K sequences, P pairs; see `data/collate.py` for what a batch holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from tunesmith.data.dataset import CHOSEN, REJECTED

__all__ = ["Batch", "Size", "cost", "is_whole", "size_of", "split"]

Batch: TypeAlias = Mapping[str, Any]

_PER_SEQUENCE = ("lengths", "kinds", "settled", "reference", "margins", "media", "bad_media")


class Size(NamedTuple):
    """`tokens`: positions of a batch, padding included; `longest`: those of its longest row or sequence."""

    tokens: int
    longest: int


def cost(batch: Batch) -> int:
    """Positions that the model computes, padding included: what the memory of a step grows with."""
    return int(batch["input_ids"].numel())


def size_of(batch: Batch) -> Size:
    bounds = batch.get("bounds")
    longest = max(end - start for start, end in pairwise(bounds)) if bounds else int(batch["input_ids"].shape[1])
    return Size(cost(batch), longest)


def is_whole(batch: Batch) -> bool:
    """Whether the batch is one row, one sequence or one pair, which is never split."""
    return len(split(batch, 0)) == 1


def split(batch: Batch, most: int | None) -> list[Batch]:
    """Parts of at most `most` positions each, and of one row, sequence or pair where that alone has more. None: no
    limit. A batch that fits is given back as it is."""
    if most is None or cost(batch) <= most:
        return [batch]
    flat = "bounds" in batch
    sizes = batch["lengths"].tolist() if flat else _row_sizes(batch)
    stretches = _stretches(_atoms(batch, len(sizes)), sizes, most, flat=flat)
    if len(stretches) == 1:
        return [batch]
    part = _flat_part if flat else _rows_part
    return [part(batch, first, last) for first, last in stretches]


def _atoms(batch: Batch, count: int) -> list[tuple[int, int]]:
    """First and last + 1 of what is never split, among the `count` rows or sequences."""
    kinds = batch["kinds"].tolist() if "kinds" in batch and "row_pieces" not in batch else [None] * count
    starts = [number for number, kind in enumerate(kinds) if kind != REJECTED]
    return list(pairwise([*starts, count]))


def _stretches(
    atoms: Sequence[tuple[int, int]], sizes: Sequence[int], most: int, *, flat: bool
) -> list[tuple[int, int]]:
    """Neighbours together as long as they have at most `most` positions."""
    found: list[tuple[int, int]] = []
    for first, last in atoms:
        if found:
            begin = found[-1][0]
            joined = sizes[begin:last]
            if (sum(joined) if flat else len(joined) * max(joined)) <= most:
                found[-1] = begin, last
                continue
        found.append((first, last))
    return found


def _row_sizes(batch: Batch) -> list[int]:
    """Tokens of each row, without what pads it."""
    if "row_pieces" not in batch:
        return [int(size) for size in batch["attention_mask"].sum(1)]
    ends = list(accumulate(batch["row_pieces"].tolist(), initial=0))
    return [int(batch["lengths"][first:last].sum()) for first, last in pairwise(ends)]


def _flat_part(batch: Batch, first: int, last: int) -> Batch:
    bounds = batch["bounds"][first : last + 1]
    begin, end = bounds[0], bounds[-1]
    part: dict[str, Any] = _beside(batch, first, last, _flat_part)
    for name, value in _rest(batch, "bounds", "cu_seqlens", "segments", *part).items():
        part[name] = value[:, begin:end] if _per_token(batch, value) else _per_sequence(batch, name, first, last)
    part["cu_seqlens"] = batch["cu_seqlens"][first : last + 1] - begin
    part["bounds"] = tuple(bound - begin for bound in bounds)
    segments = batch.get("segments", ())[first:last]  # of both of a pair, which stay together
    if any(before < until for _, _, before, until in segments):
        part["segments"] = tuple(tuple(place - begin for place in one) for one in segments)
    return part


def _rows_part(batch: Batch, first: int, last: int) -> Batch:
    width = max(_row_sizes(batch)[first:last])
    begin, end = first, last
    part: dict[str, Any] = _beside(batch, first, last, _rows_part)
    if "row_pieces" in batch:  # sequences are told one by one, not row by row
        part["row_pieces"] = batch["row_pieces"][first:last]
        begin, end = int(batch["row_pieces"][:first].sum()), int(batch["row_pieces"][:last].sum())
    for name, value in _rest(batch, "row_pieces", *part).items():
        token = _per_token(batch, value)
        part[name] = value[first:last, :width] if token else _per_sequence(batch, name, begin, end)
    return part


def _beside(batch: Batch, first: int, last: int, part: Callable[[Batch, int, int], Batch]) -> dict[str, Batch]:
    """Of a batch that stands in this one, and has as many rows or sequences, the same part."""
    return {name: part(value, first, last) for name, value in batch.items() if isinstance(value, Mapping)}


def _rest(batch: Batch, *names: str) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if name not in names}


def _per_token(batch: Batch, value: Tensor | list[Any]) -> bool:
    return isinstance(value, Tensor) and value.ndim > 1 and value.shape[:2] == batch["input_ids"].shape


def _per_sequence(batch: Batch, name: str, first: int, last: int) -> Any:
    if name in ("shared", "settled") and REJECTED in batch["kinds"]:  # for each pair
        pairs = torch.cumsum(torch.nn.functional.pad(batch["kinds"] == CHOSEN, (1, 0)).long(), 0)
        first, last = int(pairs[first]), int(pairs[last])
    else:
        assert name in _PER_SEQUENCE, f"nothing says how to split {name}"
    return batch[name][first:last]
