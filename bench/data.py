"""How fast a file becomes arrays to train on: rows per second from a cold cache, against encode_batch alone.

    python bench/data.py [--rows 20000] [--repeats 5] [--tokenizers qwen3,llama3] [--json FILE]

For each tokenizer, in one run, by turns, medians: `encode_batch` of the library tokenizers over the same rendered texts
with as many threads as there are cores; Tunesmith with tokenizers alone; Tunesmith with the faster encoder; the same
rows as ShareGPT chats of several turns; short rows. Rows are pairs of Alpaca rows, about 180 tokens with Qwen3's
tokenizer (TUNESMITH_ASSETS), else made of words. A second run with a warm cache is timed as a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parents[1]
ASSETS = Path(os.environ.get("TUNESMITH_ASSETS") or ROOT / ".." / "shared" / "assets")
TEMPLATES = {"qwen3": "official/Qwen-Qwen3-0.6B.jinja", "llama3": "older/llama-3-instruct.jinja"}
TURNS = 3  # questions of a ShareGPT row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokenizers", default="qwen3,llama3")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--warm", nargs=2, help=argparse.SUPPRESS)  # the process that is timed with a warm cache
    options = parser.parse_args()
    if options.warm:
        _warm(options.warm[0], Path(options.warm[1]))
        return
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        files = write_rows(Path(folder), options.rows)
        for name in options.tokenizers.split(","):
            found[name] = measure(name, files, Path(folder), options.repeats)
            _show(name, found[name])
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def write_rows(folder: Path, count: int) -> dict[str, Path]:
    """The same texts as Alpaca rows, as chats of several turns, and short rows; JSON Lines."""
    if ASSETS.is_dir():
        rows = json.loads((ASSETS / "data" / "sft" / "alpaca_5000.json").read_text())
        pairs = [(f"{row['instruction']}\n{row['input']}".strip(), row["output"]) for row in rows if row["output"]]
    else:
        pairs = [(f"Say {index} in {index % 7 + 3} words.", "word " * (40 + index % 90)) for index in range(4000)]
    # Neighbours are joined, at shifted places on every round, so that no text comes twice.
    size = len(pairs)
    joined = [
        tuple(f"{one}\n{other}" for one, other in zip(pairs[i % size], pairs[(i + 1 + i // size) % size], strict=True))
        for i in range(0, 2 * count, 2)
    ]
    files = {name: folder / f"{name}.jsonl" for name in ("alpaca", "sharegpt", "short")}
    with files["alpaca"].open("w") as out:
        out.writelines(json.dumps({"instruction": ask, "output": reply}) + "\n" for ask, reply in joined)
    with files["short"].open("w") as out:
        for index in range(count):
            ask, reply = pairs[index % size]
            out.write(json.dumps({"instruction": f"{index}. {ask}", "output": reply}) + "\n")
    with files["sharegpt"].open("w") as out:
        for start in range(0, len(joined) - TURNS + 1, TURNS):
            turns = [
                {"from": who, "value": text}
                for pair in joined[start : start + TURNS]
                for who, text in zip(("human", "gpt"), pair, strict=True)
            ]
            out.write(json.dumps({"conversations": turns}) + "\n")
    return files


def renderer_of(name: str) -> Any:
    from transformers import AutoTokenizer

    from tunesmith.config.template import TemplateConfig
    from tunesmith.render import make_renderer

    if not ASSETS.is_dir():
        return make_renderer(TemplateConfig(), AutoTokenizer.from_pretrained(ROOT / "tests" / "assets" / "tiny-llama"))
    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "tokenizers" / name)
    tokenizer.chat_template = (ASSETS / "templates" / TEMPLATES[name]).read_text()
    return make_renderer(TemplateConfig(), tokenizer)


def build(file: Path, renderer: Any) -> Any:
    from tunesmith.config.data import DataConfig
    from tunesmith.data import build_datasets

    config = DataConfig(dataset=(str(file),), cutoff_len=1_000_000, overwrite_cache=True)
    return build_datasets(config, renderer, stage="sft", seed=1)


def measure(name: str, files: dict[str, Path], folder: Path, repeats: int) -> dict[str, Any]:
    from tunesmith.config.data import DataConfig
    from tunesmith.data import read_examples

    os.environ["TUNESMITH_DATA_CACHE"] = str(folder / "cache")
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    renderer = renderer_of(name)
    chats = read_examples(DataConfig(dataset=(str(files["alpaca"]),)), stage="sft")
    texts = [renderer.text(chat) for chat in chats]
    backend = renderer._backend
    quick = renderer.speed_up

    def alone() -> None:
        for start in range(0, len(texts), 1000):
            backend.encode_batch(texts[start : start + 1000], add_special_tokens=False)

    def plain(file: Path) -> Callable[[], Any]:
        def run() -> Any:
            renderer.__dict__.pop("_batches", None)
            renderer.speed_up = lambda: None
            return build(file, renderer)

        return run

    def fast(file: Path) -> Callable[[], Any]:
        def run() -> Any:
            renderer.__dict__.pop("_batches", None)
            renderer.speed_up = quick
            return build(file, renderer)

        return run

    ways: dict[str, Callable[[], Any]] = {
        "encode_batch alone": alone,
        "tokenizers": plain(files["alpaca"]),
        "faster encoder": fast(files["alpaca"]),
        "faster encoder, chats": fast(files["sharegpt"]),
        "encode_batch alone, short": lambda: _encode(backend, files["short"], renderer),
        "faster encoder, short": fast(files["short"]),
    }
    counts = _counts(ways, files)
    seconds = _alternate(ways, repeats)
    rates = {way: [round(counts[way][0] / one) for one in values] for way, values in seconds.items()}
    median = {way: statistics.median(values) for way, values in rates.items()}
    tokens = {way: counts[way][1] / counts[way][0] for way in ways if counts[way][1]}
    bare = median["encode_batch alone"]
    per_token = {way: median[way] * tokens[way] for way in ("faster encoder", "faster encoder, chats") if way in tokens}
    build(files["alpaca"], renderer)
    return {
        "rows": {way: count for way, (count, _) in counts.items()},
        "tokens_per_row": {way: round(value, 1) for way, value in tokens.items()},
        "rows_per_second": {way: {"median": median[way], "all": values} for way, values in rates.items()},
        "tokenizers_over_bare": round(median["tokenizers"] / bare, 2),
        "faster_over_bare": round(median["faster encoder"] / bare, 2),
        "chats_over_rows_per_token": round(per_token["faster encoder, chats"] / per_token["faster encoder"], 2),
        "second_run_seconds": _second_run(name, files["alpaca"], folder),
    }


def _encode(backend: Any, file: Path, renderer: Any) -> None:
    texts = _texts(file, renderer)
    begin = time.perf_counter()
    backend.encode_batch(texts, add_special_tokens=False)
    _encode.seconds = time.perf_counter() - begin  # type: ignore[attr-defined]  # without the rendering


def _texts(file: Path, renderer: Any, known: dict[Path, list[str]] = {}) -> list[str]:  # noqa: B006  # a memo
    if file not in known:
        from tunesmith.config.data import DataConfig
        from tunesmith.data import read_examples

        known[file] = [renderer.text(chat) for chat in read_examples(DataConfig(dataset=(str(file),)), stage="sft")]
    return known[file]


def _counts(ways: dict[str, Callable[[], Any]], files: dict[str, Path]) -> dict[str, tuple[int, int]]:
    """(rows, tokens) of each way; a first round that also warms everything up."""
    found = {}
    for way, run in ways.items():
        datasets = run()
        rows = sum(1 for _ in files["short" if "short" in way else "sharegpt" if "chats" in way else "alpaca"].open())
        found[way] = (rows, datasets.train.num_tokens if datasets is not None else 0)
    return found


def _alternate(ways: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each way, one of each in turn so that a slow moment of the machine hits all."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            own = getattr(_encode, "seconds", 0.0) if name == "encode_batch alone, short" else 0.0
            seconds[name].append(own or time.perf_counter() - begin)
    return seconds


def _second_run(name: str, file: Path, folder: Path) -> dict[str, float]:
    """From the start of a process to the first batch, the cache being warm; and the imports among it."""
    command = [sys.executable, __file__, "--warm", name, str(file)]
    environment = {**os.environ, "TUNESMITH_DATA_CACHE": str(folder / "cache")}
    runs = [
        json.loads(subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout)
        for _ in range(3)
    ]
    return {key: round(statistics.median(run[key] for run in runs), 2) for key in runs[0]}


def _warm(name: str, file: Path) -> None:
    begin = time.perf_counter()
    import torch  # noqa: F401
    import transformers  # noqa: F401

    from tunesmith.config.data import DataConfig
    from tunesmith.data import PaddingCollator, build_datasets

    imported = time.perf_counter()
    renderer = renderer_of(name)
    config = DataConfig(dataset=(str(file),), cutoff_len=1_000_000)
    train = build_datasets(config, renderer, stage="sft", seed=1).train
    assert train is not None
    PaddingCollator(0)([train[index] for index in range(8)])
    done = time.perf_counter()
    print(json.dumps({"imports": imported - begin, "to_first_batch": done - imported}))


def _show(name: str, found: dict[str, Any]) -> None:
    print(f"\n{name}, medians")
    for way, rates in found["rows_per_second"].items():
        spread = f"({min(rates['all']):,}-{max(rates['all']):,})"
        tokens = found["tokens_per_row"].get(way, "")
        print(f"  {way:<28}{rates['median']:>10,.0f} rows/s {spread:<18} {tokens} tokens per row")
    print(f"  tokenizers over encode_batch alone: {found['tokenizers_over_bare']}")
    print(f"  the faster encoder over encode_batch alone: {found['faster_over_bare']}")
    print(f"  chats over rows, per token: {found['chats_over_rows_per_token']}")
    print(f"  second run: {found['second_run_seconds']}")


if __name__ == "__main__":
    main()
