"""How fast a file becomes arrays to train on: rows per second from a cold cache, against encode_batch alone.

    python bench/data.py [--rows 20000] [--repeats 5] [--tokenizers qwen3,llama3] [--json FILE] [--peer PYTHON]

For each tokenizer, in one run, by turns, medians: `encode_batch` of the library tokenizers over the same rendered texts
with as many threads as there are cores; Tunesmith with tokenizers alone; Tunesmith with the faster encoder; the same
rows as ShareGPT chats of several turns; short rows. Rows are two or three Alpaca rows, about 180 tokens with Qwen3's
tokenizer (TUNESMITH_ASSETS), else made of words. A second run with a warm cache is timed as a process of its own.

`--peer` adds LlamaFactory with one worker, in the environment of that interpreter (bench/peers/llamafactory_data.py),
and Tunesmith in one process: by default it takes as many as there are cores.
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
from typing import Any, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parents[1]
ASSETS = Path(os.environ.get("TUNESMITH_ASSETS") or ROOT / ".." / "shared" / "assets")
TEMPLATES = {"qwen3": "official/Qwen-Qwen3-0.6B.jinja", "llama3": "with_generation_marks/llama3.jinja"}
PEER, ONE_PROCESS = "LlamaFactory, 1 worker", "faster encoder, 1 process"
PEER_SCRIPT = ROOT / "bench" / "peers" / "llamafactory_data.py"  # its templates have the names of our tokenizers
TURNS = 3  # questions of a ShareGPT row


class Run(NamedTuple):
    seconds: float
    tokens: int = 0  # 0: not counted


Way = Callable[[], Run]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokenizers", default="qwen3,llama3")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peer", type=Path, metavar="PYTHON", help="an interpreter that has llamafactory")
    parser.add_argument("--warm", nargs=2, help=argparse.SUPPRESS)  # the process that is timed with a warm cache
    options = parser.parse_args()
    if options.warm:
        _warm(options.warm[0], Path(options.warm[1]))
        return
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        files = write_rows(Path(folder), options.rows)
        for name in options.tokenizers.split(","):
            found[name] = measure(name, files, Path(folder), options.repeats, options.peer)
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
    joined = [_join(pairs, number) for number in range(count)]
    files = {name: folder / f"{name}.jsonl" for name in ("alpaca", "sharegpt", "short")}
    with files["alpaca"].open("w") as out:
        out.writelines(json.dumps({"instruction": ask, "output": reply}) + "\n" for ask, reply in joined)
    with files["short"].open("w") as out:
        for index in range(count):
            ask, reply = pairs[index % len(pairs)]
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


def _join(pairs: list[tuple[str, str]], number: int) -> tuple[str, str]:
    """Two neighbours in one, in every fourth row three; other ones on every round, so that no text comes twice."""
    first, turn = 2 * number, 2 * number // len(pairs)
    places = [first, first + 1 + turn, first + 3 + 2 * turn][: 3 if number % 4 == 3 else 2]
    asks, replies = zip(*(pairs[place % len(pairs)] for place in places), strict=True)
    return "\n".join(asks), "\n".join(replies)


def renderer_of(name: str) -> Any:
    from transformers import AutoTokenizer

    from tunesmith.config.template import TemplateConfig
    from tunesmith.render import make_renderer

    if not ASSETS.is_dir():
        return make_renderer(TemplateConfig(), AutoTokenizer.from_pretrained(ROOT / "tests" / "assets" / "tiny-llama"))
    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "tokenizers" / name)
    tokenizer.chat_template = (ASSETS / "templates" / TEMPLATES[name]).read_text()
    return make_renderer(TemplateConfig(), tokenizer)


def build(file: Path, renderer: Any, workers: int | None = None) -> Any:
    from tunesmith.config.data import DataConfig
    from tunesmith.data import build_datasets

    settings = {"cutoff_len": 1_000_000, "overwrite_cache": True, "preprocessing_num_workers": workers}
    config = DataConfig(dataset=(str(file),), **settings)
    return build_datasets(config, renderer, stage="sft", seed=1)


def measure(name: str, files: dict[str, Path], folder: Path, repeats: int, peer: Path | None) -> dict[str, Any]:
    os.environ["TUNESMITH_DATA_CACHE"] = str(folder / "cache")
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    renderer = renderer_of(name)
    quick = renderer.speed_up

    def alone(file: Path) -> Way:
        return lambda: _encode(renderer._backend, _texts(file, renderer))

    def prepare(file: Path, speed_up: Callable[[], None], workers: int | None = None) -> Way:
        def run() -> Run:
            renderer.__dict__.pop("_batches", None)
            renderer.speed_up = speed_up
            begin = time.perf_counter()
            datasets = build(file, renderer, workers)
            return Run(time.perf_counter() - begin, datasets.train.num_tokens)

        return run

    ways: dict[str, Way] = {
        "encode_batch alone": alone(files["alpaca"]),
        "tokenizers": prepare(files["alpaca"], lambda: None),
        "faster encoder": prepare(files["alpaca"], quick),
        "faster encoder, chats": prepare(files["sharegpt"], quick),
        "encode_batch alone, short": alone(files["short"]),
        "faster encoder, short": prepare(files["short"], quick),
    }
    if peer is not None:
        ways[ONE_PROCESS] = prepare(files["alpaca"], quick, 0)
        ways[PEER] = lambda: _peer(peer, files["alpaca"], name)
    warm = {way: run() for way, run in ways.items()}  # a first round that also warms everything up
    rows = {way: sum(1 for _ in _file_of(way, files).open()) for way in ways}
    seconds = _alternate(ways, repeats)
    rates = {way: [round(rows[way] / one) for one in values] for way, values in seconds.items()}
    median = {way: statistics.median(values) for way, values in rates.items()}
    tokens = {way: run.tokens / rows[way] for way, run in warm.items() if run.tokens}
    bare = median["encode_batch alone"]
    per_token = {way: median[way] * tokens[way] for way in ("faster encoder", "faster encoder, chats")}
    build(files["alpaca"], renderer)
    found = {
        "rows": rows,
        "tokens_per_row": {way: round(value, 1) for way, value in tokens.items()},
        "rows_per_second": {way: {"median": median[way], "all": values} for way, values in rates.items()},
        "tokenizers_over_bare": round(median["tokenizers"] / bare, 2),
        "faster_over_bare": round(median["faster encoder"] / bare, 2),
        "chats_over_rows_per_token": round(per_token["faster encoder, chats"] / per_token["faster encoder"], 2),
        "second_run_seconds": _second_run(name, files["alpaca"], folder),
    }
    if peer is not None:
        found["faster_over_peer"] = round(median["faster encoder"] / median[PEER], 1)
        found["one_process_over_peer"] = round(median[ONE_PROCESS] / median[PEER], 1)
    return found


def _file_of(way: str, files: dict[str, Path]) -> Path:
    return files["short" if "short" in way else "sharegpt" if "chats" in way else "alpaca"]


def _encode(backend: Any, texts: list[str]) -> Run:
    begin = time.perf_counter()
    for start in range(0, len(texts), 1000):
        backend.encode_batch(texts[start : start + 1000], add_special_tokens=False)
    return Run(time.perf_counter() - begin)


def _peer(python: Path, file: Path, name: str) -> Run:
    """A process of its own, so that nothing is warm; it times itself, without its imports."""
    command = [str(python), str(PEER_SCRIPT), str(file), str(ASSETS / "tokenizers" / name), name]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    count = sum(1 for _ in file.open())
    assert found["rows"] == count, f"{found['rows']} of {count} rows came out"
    return Run(found["seconds"], found["tokens"])


def _texts(file: Path, renderer: Any, known: dict[Path, list[str]] = {}) -> list[str]:  # noqa: B006  # a memo
    if file not in known:
        from tunesmith.config.data import DataConfig
        from tunesmith.data import read_examples

        known[file] = [renderer.text(chat) for chat in read_examples(DataConfig(dataset=(str(file),)), stage="sft")]
    return known[file]


def _alternate(ways: dict[str, Way], repeats: int) -> dict[str, list[float]]:
    """Seconds of each way, one of each in turn so that a slow moment of the machine hits all."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            seconds[name].append(way().seconds)
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
    if "faster_over_peer" in found:
        one = found["one_process_over_peer"]
        print(f"  the faster encoder over {PEER}: {found['faster_over_peer']}; in one process: {one}")
    print(f"  chats over rows, per token: {found['chats_over_rows_per_token']}")
    print(f"  second run: {found['second_run_seconds']}")


if __name__ == "__main__":
    main()
