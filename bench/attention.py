"""What attention over a flat batch costs: sequence by sequence, in groups, and by which kernel.

    python bench/attention.py [--heads 9 --groups 3 --size 64] [--repeats 15] [--json FILE]

One layer, forward and backward, T positions in sequences of one length; medians. `alone`: a call of the fused kernel
for each sequence; `grouped`: those of similar length in one call; `written out`: grouped, scores written out.
The training path takes the grouped way, on a CPU in half precision written out up to `SHORT` positions.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tunesmith.models import attention
from tunesmith.models.groups import attend_in_groups

SEQUENCES = ((16, 32), (8, 64), (4, 128), (4, 192), (4, 256), (2, 512))
LAYER = SimpleNamespace(training=False, is_causal=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=int, default=9)
    parser.add_argument("--groups", type=int, default=3)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = []
    for kind in (torch.float32, torch.bfloat16):
        for count, length in SEQUENCES:
            shapes = [(count * length, heads, options.size) for heads in (options.heads, *[options.groups] * 2)]
            three = [torch.randn(1, *shape, dtype=kind).transpose(1, 2).requires_grad_() for shape in shapes]
            bounds = tuple(range(0, count * length + 1, length))
            times = {name: _milliseconds(way, three, bounds, options.repeats) for name, way in WAYS.items()}
            found.append({"dtype": str(kind).removeprefix("torch."), "sequences": count, "length": length, **times})
            shown = "  ".join(f"{name} {value:6.2f} ms" for name, value in times.items())
            print(f"{found[-1]['dtype']:<9}{count:>3} x {length:<4} {shown}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


Way = Callable[[list[Tensor], tuple[int, ...]], Tensor]


def _fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=query.shape[1] != key.shape[1])


def _written_out(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    layer = attention._Attention(LAYER, None, 0.0, None, None, None)
    return layer._written_out(query, key, value, None, True)


def _alone(three: list[Tensor], bounds: tuple[int, ...]) -> Tensor:
    parts = [_fused(*(one[:, :, start:end] for one in three)).transpose(1, 2) for start, end in pairwise(bounds)]
    return torch.cat(parts, dim=1)


WAYS: dict[str, Way] = {
    "alone": _alone,
    "grouped": lambda three, bounds: attend_in_groups(_fused, *three, bounds),
    "written out": lambda three, bounds: attend_in_groups(_written_out, *three, bounds),
}


def _milliseconds(way: Way, three: list[Tensor], bounds: tuple[int, ...], repeats: int) -> float:
    times = []
    for _ in range(repeats + 2):
        begin = time.perf_counter()
        found = way(three, bounds)
        found.backward(torch.ones_like(found))
        times.append(time.perf_counter() - begin)
    return round(statistics.median(times[2:]) * 1000, 3)


if __name__ == "__main__":
    main()
