"""How fast chats become ids and masks: the model's own Jinja, a named template, and the encoder alone.

    python bench/render.py [--rows 2000] [--repeats 5] [--json]

Ratios are within one run, from medians of alternating repeats. Tokenizer and rows are those of Qwen3 and Alpaca where
the test assets are at hand (TUNESMITH_ASSETS), else the project's own tiny ones.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ASSETS = Path(os.environ.get("TUNESMITH_ASSETS") or ROOT / ".." / "shared" / "assets")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    tokenizer, template, rows, source = _inputs(options.rows)
    ways = _ways(tokenizer, template, rows)
    seconds = _alternate(ways, options.repeats)
    fastest = min(seconds.values())
    found = {
        name: {"rows_per_second": round(len(rows) / value), "ratio": round(value / fastest, 2)}
        for name, value in seconds.items()
    }
    found_ratio = round(seconds["auto"] / seconds["named"], 2)
    if options.json:
        print(
            json.dumps({"source": source, "rows": len(rows), "ways": found, "auto_over_named": found_ratio}, indent=2)
        )
        return
    print(f"{source}, {len(rows):,} rows, medians of {options.repeats}")
    for name, figures in found.items():
        print(f"{name:<28}{figures['rows_per_second']:>9,} rows/s {figures['ratio']:>6.2f}x")
    print(f"auto takes {found_ratio:.2f} times as long as the named template")


def _inputs(count: int) -> tuple[Any, str, list[tuple[str, str]], str]:
    """Tokenizer, the name of the template that equals its own, question-answer rows, and where they are from."""
    from transformers import AutoTokenizer

    if ASSETS.is_dir():
        tokenizer = AutoTokenizer.from_pretrained(ASSETS / "tokenizers" / "qwen3")
        tokenizer.chat_template = (ASSETS / "templates" / "official" / "Qwen-Qwen3-0.6B.jinja").read_text()
        found = json.loads((ASSETS / "data" / "sft" / "alpaca_5000.json").read_text())
        rows = [(f"{row['instruction']}\n{row['input']}".strip(), row["output"]) for row in found if row["output"]]
        return tokenizer, "qwen3", rows[:count], "Qwen3's tokenizer, Alpaca"
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "tests" / "assets" / "tiny-llama")
    found = json.loads((ROOT / "tests" / "assets" / "data" / "known_alpaca.json").read_text())
    rows = [(row["instruction"], row["output"]) for row in found]
    return tokenizer, "chatml", (rows * (1 + count // len(rows)))[:count], "the tiny model's tokenizer and rows"


def _ways(tokenizer: Any, template: str, rows: Sequence[tuple[str, str]]) -> dict[str, Callable[[], Any]]:
    from tunesmith.config.template import TemplateConfig
    from tunesmith.core.types import Chat, Message
    from tunesmith.render import make_renderer

    chats = [Chat((Message("user", ask), Message("assistant", answer))) for ask, answer in rows]
    named = make_renderer(TemplateConfig(template=template), tokenizer)
    auto = make_renderer(TemplateConfig(), tokenizer)
    texts = [auto.text(chat) for chat in chats]
    backend = tokenizer.backend_tokenizer
    return {
        "encode_batch alone": lambda: backend.encode_batch(texts, add_special_tokens=False),
        "named": lambda: named.encode_chats(chats),
        "auto": lambda: auto.encode_chats(chats),
        "named, text and mask only": lambda: [named.samples(chat) for chat in chats],
        "auto, text and mask only": lambda: [auto.samples(chat) for chat in chats],
    }


def _alternate(ways: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each way, one of each in turn so that a slow moment of the machine hits all."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):  # the first is the warm-up
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            if repeat:
                seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


if __name__ == "__main__":
    main()
