"""What the engine costs, beside transformers' `generate`.

    python bench/serving.py [--cases batch,single] [--model smollm2] [--dtype bfloat16] [--requests 8,16] [--tokens 64]
                            [--repeats 5] [--threads 2] [--json FILE]
    python bench/serving.py --table FILE

`batch`: tokens a second of so many requests at once, against one static batch of `generate` of the same prompts in the
same precision, by turns in one process; what memory grows by above the weights is that of a process for each.
`single`: a request of 32 tokens alone on stories260K (test assets), the whole and the first token, against `generate`
of as many tokens. Prompts are random tokens of different lengths; no reply stops early. Medians, and the ranges.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import child

from tunesmith.config.engine import EngineConfig
from tunesmith.engines.base import Request, Sampling

ASSETS = Path(os.environ.get("TUNESMITH_ASSETS", "../shared/assets"))
SHORTEST, LONGEST = 32, 96  # tokens of a prompt
SINGLE_TOKENS = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default="batch,single")
    parser.add_argument("--model", default="smollm2", help="smollm2 (the demo's), stories260K, or a folder")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--requests", default="8,16")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path, help="print the Markdown tables of a JSON file of this script")
    parser.add_argument("--child", help=argparse.SUPPRESS)  # the process that is measured
    options = parser.parse_args()
    if options.child:
        told = json.loads(options.child)
        print(json.dumps(CHILDREN[told.pop("case")](**told)))
        return
    if options.table:
        print(table(json.loads(options.table.read_text())))
        return
    found: dict[str, Any] = {"model": options.model, "dtype": options.dtype, "threads": options.threads}
    common = {"repeats": options.repeats, "threads": options.threads}
    if "batch" in options.cases:
        keys = {"model": options.model, "dtype": options.dtype, "tokens": options.tokens, **common}
        found["batch"] = [_batch_of({**keys, "count": int(count)}) for count in options.requests.split(",")]
    if "single" in options.cases:
        found["single"] = child.run(__file__, {"case": "single", **common})
    print(table(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def _batch_of(keys: dict[str, Any]) -> dict[str, Any]:
    found = child.run(__file__, {"case": "batch", **keys})
    for way in ("engine", "generate"):
        found[f"{way}_mb"] = child.run(__file__, {"case": "memory", "way": way, **keys})
    return {"requests": keys["count"], "tokens": keys["tokens"], **found}


# ---- in a process of its own ----


class _Both:
    """One model, and the two ways to let it write."""

    def __init__(self, model: str, dtype: str, threads: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(threads)
        folder = _folder(model)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.weights = _resident()

    def engine(self) -> Any:
        from tunesmith.engines.hf import HFEngine

        renderer: Any = SimpleNamespace(stop_ids=(), media=None)
        settings = EngineConfig(max_batch_requests=64)
        return HFEngine(self.model, self.tokenizer, renderer, SimpleNamespace(), settings)  # type: ignore[arg-type]

    def prompts(self, count: int, seed: int) -> list[tuple[int, ...]]:
        import torch

        chance = torch.Generator().manual_seed(seed)
        sizes = torch.randint(SHORTEST, LONGEST + 1, (count,), generator=chance).tolist()
        most = self.model.config.vocab_size
        return [tuple(torch.randint(3, most, (size,), generator=chance).tolist()) for size in sizes]

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> float:
        """Seconds of a static batch, padded on the left."""
        import torch

        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        more = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        begin = time.perf_counter()
        output = self.model.generate(ids, attention_mask=mask, max_new_tokens=tokens, min_new_tokens=tokens, **more)
        seconds = time.perf_counter() - begin
        assert output.shape[1] == longest + tokens
        return seconds

    def serve(self, prompts: Sequence[Sequence[int]], tokens: int) -> float:
        """Seconds of as many requests at once. The engine is there for as long as this lasts, without its start."""
        requests = [Request(tuple(prompt), Sampling(do_sample=False, max_new_tokens=tokens)) for prompt in prompts]
        with self.engine() as engine:
            begin = time.perf_counter()
            pieces = [piece for _, piece in engine.run_all(requests)]
            seconds = time.perf_counter() - begin
        assert all(len(piece.tokens) == tokens for piece in pieces)
        return seconds


def _batch(model: str, dtype: str, count: int, tokens: int, repeats: int, threads: int) -> dict[str, list[float]]:
    both = _Both(model, dtype, threads)
    found: dict[str, list[float]] = {"engine": [], "generate": []}
    for number in range(repeats + 1):
        prompts = both.prompts(count, number)
        for way, run in (("generate", both.generate), ("engine", both.serve)):
            found[way].append(count * tokens / run(prompts, tokens))
    return {way: rates[1:] for way, rates in found.items()}  # the first is to get warm


def _memory(way: str, model: str, dtype: str, count: int, tokens: int, repeats: int, threads: int) -> float:
    """MB that the process has grown by at most since the weights were there."""
    both = _Both(model, dtype, threads)
    run = {"engine": both.serve, "generate": both.generate}[way]
    for number in range(2):
        run(both.prompts(count, number), tokens)
    return _resident("VmHWM") - both.weights


def _single(repeats: int, threads: int) -> dict[str, list[float]]:
    both = _Both("stories260K", "float32", threads)
    found: dict[str, list[float]] = {"engine": [], "generate": [], "engine_first": [], "generate_first": []}
    for number in range(20 * repeats):
        prompts = both.prompts(1, number)
        found["generate"].append(1000 * both.generate(prompts, SINGLE_TOKENS))
        found["generate_first"].append(1000 * both.generate(prompts, 1))
        with both.engine() as engine:
            for _ in range(2):  # the first is to get warm: the thread has just begun
                first, whole = _timed(engine, prompts[0])
        found["engine"].append(whole)
        found["engine_first"].append(first)
    return {way: times[1:] for way, times in found.items()}


def _timed(engine: Any, prompt: Sequence[int]) -> tuple[float, float]:
    """Milliseconds until the first token of a prompt, and until the last. No prefix of it is known."""
    engine._fitted.runner.forget(None)
    request = Request(tuple(prompt), Sampling(do_sample=False, max_new_tokens=SINGLE_TOKENS))
    begin = time.perf_counter()
    times = [time.perf_counter() - begin for _ in engine.run(request)]
    return 1000 * times[0], 1000 * times[-1]


CHILDREN: dict[str, Callable[..., Any]] = {"batch": _batch, "memory": _memory, "single": _single}


def _folder(model: str) -> str:
    if model == "smollm2":
        from tunesmith.models.demo import demo_model

        return str(demo_model(lambda message: None))
    return str(ASSETS / "models" / model if model == "stories260K" else model)


def _resident(which: str = "VmRSS") -> float:
    """MB that this process has, or has had at most."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(which))


# ---- tables ----


def table(found: dict[str, Any]) -> str:
    """Markdown."""
    lines = []
    if rows := found.get("batch"):
        lines += [
            f"| {found['model']}, {found['dtype']} | engine, tokens/s | static `generate`, tokens/s | ratio "
            "| engine above the weights | `generate` above them |",
            "|---|---|---|---|---|---|",
        ]
        for row in rows:
            ratio = statistics.median(row["engine"]) / statistics.median(row["generate"])
            cells = [_range(row["engine"]), _range(row["generate"]), f"{ratio:.2f}"]
            cells += [f"{row[f'{way}_mb']:.0f} MB" for way in ("engine", "generate")]
            plural = "s" if row["requests"] > 1 else ""
            lines.append(f"| {row['requests']} request{plural} of {row['tokens']} tokens | " + " | ".join(cells) + " |")
    if single := found.get("single"):
        lines += ["", "| stories260K, float32 | engine | bare `generate` | more |", "|---|---|---|---|"]
        for name, way in ((f"{SINGLE_TOKENS} tokens", ""), ("first token", "_first")):
            engine, bare = single[f"engine{way}"], single[f"generate{way}"]
            more = statistics.median(engine) - statistics.median(bare)
            lines.append(f"| {name} | {_range(engine)} ms | {_range(bare)} ms | {more:+.1f} ms |")
            late = _late(engine) - statistics.median(bare)
            lines.append(f"| {name}, 95th of 100 | {_late(engine):.1f} ms | {_late(bare):.1f} ms | {late:+.1f} ms |")
    return "\n".join(lines).strip()


def _range(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


def _late(values: Sequence[float]) -> float:
    return sorted(values)[int(0.95 * len(values))]


if __name__ == "__main__":
    main()
