"""What the loss costs from hidden states on: in chunks of several sizes, and with the logits of all tokens at once.

    python bench/loss.py [--tokens 512] [--hidden 512] [--vocabulary 151936] [--train-head] [--bf16] [--json FILE]

Forward and backward of N trained tokens; medians of several rounds, ways by turns, so that a machine that drifts
disturbs all alike. `memory`: the float32 logits that are alive at once, in MB. `CHUNK_BYTES` is chosen by this.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunesmith.losses.linear_cross_entropy import Head, chunk_rows, linear_cross_entropy

ROWS = (16, 32, 64, 128, 192, 256, 384, 512)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--train-head", action="store_true", help="the output layer has a gradient too")
    parser.add_argument("--bf16", action="store_true", help="weights and hidden states in bfloat16")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    kind = torch.bfloat16 if options.bf16 else torch.float32
    torch.manual_seed(0)
    weight = torch.randn(options.vocabulary, options.hidden, dtype=kind) * 0.02
    weight.requires_grad_(options.train_head)
    hidden = torch.randn(options.tokens, options.hidden, dtype=kind).requires_grad_()
    targets = torch.randint(options.vocabulary, (options.tokens,))
    sizes = sorted({*(rows for rows in ROWS if rows <= options.tokens), min(options.tokens, chunk_rows(weight))})
    ways: dict[str, Callable[[], Tensor]] = {
        f"chunks of {rows}": _chunked(hidden, weight, targets, rows) for rows in sizes
    }
    ways["all at once"] = lambda: torch.nn.functional.cross_entropy(
        (hidden @ weight.T).float(), targets, reduction="sum"
    )
    found = _measure(ways, options.repeats)
    best = min(one["seconds"] for one in found.values())
    for name, one in found.items():
        rows = options.tokens if name == "all at once" else int(name.rsplit(" ", 1)[-1])
        one["memory"] = round(rows * options.vocabulary * 4 / 1e6)
        chosen = (
            "   <- CHUNK_BYTES" if rows == min(options.tokens, chunk_rows(weight)) and name != "all at once" else ""
        )
        print(f"{name:<16}{one['seconds']:8.3f} s  {one['seconds'] / best:5.2f}x{one['memory']:>7,} MB{chosen}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def _chunked(hidden: Tensor, weight: Tensor, targets: Tensor, rows: int) -> Callable[[], Tensor]:
    return lambda: linear_cross_entropy(hidden, Head(weight), targets, rows=rows)[0]


def _measure(ways: dict[str, Callable[[], Tensor]], repeats: int) -> dict[str, dict[str, Any]]:
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, way in ways.items():
            begin = time.perf_counter()
            way().backward()
            times[name].append(time.perf_counter() - begin)
    return {name: {"seconds": round(statistics.median(some[1:]), 4)} for name, some in times.items()}


if __name__ == "__main__":
    main()
