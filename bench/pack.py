"""How fast sequences are packed and how full the packs are, over the whole set and in the windows of a stream.

    python bench/pack.py [--sequences 1000000] [--capacity 2048] [--runs 5] [--json]

Lengths are drawn from those of alpaca_en_demo under Qwen3's tokenizer where the test assets are at hand
(TUNESMITH_ASSETS), else from a log-normal distribution like it. Medians of the runs. Exit code 1 if packing a million
lengths takes more than 3 s, or the packs are less than 99.5 % full.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tunesmith.data.pack import fit

ASSETS = Path(os.environ.get("TUNESMITH_ASSETS") or Path(__file__).resolve().parents[1] / ".." / "shared" / "assets")
SECONDS_A_MILLION = 3.0
FILL = 0.995
TEMPLATE = 15  # tokens that a chat template adds to a question and its answer
WINDOWS = (1000, 16_384)  # rows that a stream packs together; the second is the default of buffer_size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=1_000_000)
    parser.add_argument("--capacity", type=int, default=2048)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true", dest="as_json")
    options = parser.parse_args()
    known, source = known_lengths()
    lengths = np.random.default_rng(0).choice(np.minimum(known, options.capacity), options.sequences)
    ways: dict[str, Callable[[], int]] = {"whole set": lambda: count_packs(lengths, options.capacity, len(lengths))}
    for window in WINDOWS:
        ways[f"windows of {window:,}"] = lambda window=window: count_packs(lengths, options.capacity, window)
    rows = []
    for name, way in ways.items():
        seconds, packs = measure(way, options.runs)
        fill = float(lengths.sum() / (packs * options.capacity))
        rows.append({"way": name, "sequences": len(lengths), "seconds": round(seconds, 3), "fill": round(fill, 5)})
    whole = rows[0]
    ok = whole["seconds"] <= SECONDS_A_MILLION * len(lengths) / 1e6 and whole["fill"] >= FILL
    if options.as_json:
        print(json.dumps({"lengths": source, "capacity": options.capacity, "ways": rows, "ok": ok}, indent=2))
    else:
        print(f"lengths of {source}, mean {lengths.mean():.0f}; packs of {options.capacity:,}")
        for row in rows:
            rate = row["sequences"] / row["seconds"]
            print(f"{row['way']:<24}{row['sequences']:>11,} in {row['seconds']:>7.3f} s{rate:>13,.0f}/s", end="")
            print(f"{row['fill']:>9.2%} full")
    return 0 if ok else 1


def known_lengths() -> tuple[np.ndarray, str]:
    """Tokens of chats, and where they are from."""
    if not ASSETS.is_dir():
        drawn = np.random.default_rng(1).lognormal(4.9, 0.6, 10_000).astype(np.int64)
        return np.maximum(drawn, TEMPLATE), "a log-normal distribution"
    from tokenizers import Tokenizer

    rows = json.loads((ASSETS / "data" / "sft" / "alpaca_en_demo.json").read_text())
    tokenizer = Tokenizer.from_file(str(ASSETS / "tokenizers" / "qwen3" / "tokenizer.json"))
    texts = [f"{row['instruction']}\n{row['input']}\n{row['output']}" for row in rows]
    found = [len(encoded.ids) + TEMPLATE for encoded in tokenizer.encode_batch(texts)]
    return np.array(found, dtype=np.int64), "alpaca_en_demo with Qwen3's tokenizer"


def count_packs(lengths: np.ndarray, capacity: int, window: int) -> int:
    """Packs where each window is packed by itself."""
    return sum(len(fit(lengths[at : at + window], capacity)[1]) - 1 for at in range(0, len(lengths), window))


def measure(way: Callable[[], int], runs: int) -> tuple[float, int]:
    """Median seconds, and the packs that it makes."""
    seconds = []
    for _ in range(runs):
        begin = time.perf_counter()
        packs = way()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds), packs


if __name__ == "__main__":
    sys.exit(main())
