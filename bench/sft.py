"""How fast fine-tuning is, with what memory, and that it computes the same: flat batches against padded ones.

    python bench/sft.py [--cases small-lora,...] [--repeats 3] [--steps 6] [--json FILE]

Each way is a process of its own, by turns: `fast_path: off` (padded batches, the logits of all positions, as
transformers trains) and `auto`, on the same rows in the same batches. A step is timed from the end of the one before.
Growth is the peak of memory in training minus what a forward pass over all weights had left. Models have random weights
in the shape of Qwen2, made here; rows are those of Alpaca where the test assets are at hand (TUNESMITH_ASSETS), else
made of words. Medians; loss and gradient norm of every step stand beside the speed.
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
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ASSETS = Path(os.environ.get("TUNESMITH_ASSETS") or ROOT / ".." / "shared" / "assets")
SMALL = {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 2}
HALF = {"hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2}
SMOLLM = {"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3}
SHAPES = {
    "small": {**SMALL, "intermediate_size": 1408, "vocab_size": 151_936},
    "half": {**HALF, "intermediate_size": 4864, "vocab_size": 151_936},
    "smollm": {**SMOLLM, "intermediate_size": 1536, "vocab_size": 49_152},
}
LORA = {"finetuning_type": "lora", "lora_rank": 8}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "small-lora": ("small", LORA),
    "small-lora-bf16": ("small", {**LORA, "bf16": True}),
    "small-full": ("small", {"finetuning_type": "full"}),
    "half-lora": ("half", LORA),
    "smollm-lora": ("smollm", LORA),
    "smollm-lora-bf16": ("smollm", {**LORA, "bf16": True}),
}
WAYS = {"padded": {"fast_path": "off"}, "flat": {"fast_path": "require"}, "packed": {"packing": True}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--ways", default="padded,flat")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--keep-activations", action="store_true", help="without gradient checkpointing")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)  # the process that is measured
    options = parser.parse_args()
    if options.child:
        _child(json.loads(options.child))
        return
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in options.cases.split(","):
            shape, keys = CASES[case]
            model = make_model(Path(folder), shape)
            run = {**keys, "model_name_or_path": str(model), "max_steps": options.steps, **_rows(Path(folder))}
            run["disable_gradient_checkpointing"] = options.keep_activations
            found[case] = measure(run, Path(folder), options.ways.split(","), options.repeats)
            _show(case, found[case])
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def make_model(folder: Path, shape: str) -> Path:
    """A model of this shape with random weights and a tokenizer, once."""
    target = folder / shape
    if target.exists():
        return target
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    source = ASSETS / "tokenizers" / "qwen3" if ASSETS.is_dir() else ROOT / "tests" / "assets" / "tiny-llama"
    Qwen2ForCausalLM(Qwen2Config(**SHAPES[shape], tie_word_embeddings=True)).save_pretrained(target)
    AutoTokenizer.from_pretrained(source).save_pretrained(target)
    return target


def _rows(folder: Path) -> dict[str, Any]:
    file = ASSETS / "data" / "sft" / "alpaca_5000.json"
    if not file.is_file():
        file = folder / "rows.json"
        rows = [{"instruction": f"Say {n}", "input": "", "output": "word " * (20 + 7 * n % 150)} for n in range(500)]
        file.write_text(json.dumps(rows))
    return {"dataset": str(file), "template": "qwen", "cutoff_len": 1024, "max_samples": 500}


def measure(run: dict[str, Any], folder: Path, ways: list[str], repeats: int) -> dict[str, Any]:
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way in ways:
            config = {**run, **WAYS[way], "output_dir": str(folder / "out")}
            command = [sys.executable, __file__, "--child", json.dumps(config)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr)
            runs[way].append(json.loads(done.stdout.splitlines()[-1]))
    found: dict[str, Any] = {way: _summary(results) for way, results in runs.items()}
    first = ways[0]
    for way in ways[1:]:
        found[way]["times_as_fast"] = round(found[first]["seconds"] / found[way]["seconds"], 2)
        found[way]["share_of_growth"] = round(found[way]["growth"] / found[first]["growth"], 3)
        pairs = list(zip(runs[first][0]["losses"], runs[way][0]["losses"], strict=False))
        found[way]["loss_difference"] = max(abs(one - other) / one for one, other in pairs)
        pairs = list(zip(runs[first][0]["norms"], runs[way][0]["norms"], strict=False))
        found[way]["norm_difference"] = max(abs(one - other) / one for one, other in pairs)
    return found


def _summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    seconds = [statistics.median(one["seconds"]) for one in results]
    tokens = statistics.mean(results[0]["tokens"])
    return {
        "seconds": round(statistics.median(seconds), 3),
        "range": [round(min(seconds), 3), round(max(seconds), 3)],
        "tokens_per_second": round(tokens / statistics.median(seconds), 1),
        "growth": round(statistics.median(one["growth"] for one in results)),
        "losses": results[0]["losses"],
        "norms": results[0]["norms"],
        "runs": results,
    }


def _child(config: dict[str, Any]) -> None:
    """One run: seconds, tokens, loss and gradient norm of each step but the first, and the growth of memory in MB."""
    import torch

    import tunesmith
    from tunesmith.train.trainer import Trainer

    watch = _watch()
    original = Trainer.train

    def train(self: Any, *arguments: Any, **keywords: Any) -> Any:
        with torch.no_grad():
            self.model(input_ids=torch.arange(8)[None])
        watch.start()
        self.add_callback(watch)
        return original(self, *arguments, **keywords)

    Trainer.train = train  # type: ignore[method-assign]
    keys = {"per_device_train_batch_size": 4, "logging_steps": 1, "save_strategy": "no", "seed": 1, "use_cpu": True}
    keys |= {"learning_rate": 1e-4, "overwrite_output_dir": True, "stage": "sft"}
    tunesmith.train({**keys, **config})
    lines = [json.loads(one) for one in (Path(config["output_dir"]) / "trainer_log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    print(
        json.dumps(
            {
                "seconds": watch.seconds[1:],
                "tokens": [b["tokens"] - a["tokens"] for a, b in pairwise(steps)],
                "growth": watch.growth,
                "losses": [line["loss"] for line in steps],
                "norms": [line["grad_norm"] for line in steps],
            }
        )
    )


def _watch() -> Any:
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]
        """Seconds of each step, from the end of the one before, and how far memory rose."""

        def start(self) -> None:
            Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
            self._before, self.growth = _status("VmRSS"), 0.0
            self.seconds: list[float] = []
            self._last = time.perf_counter()

        def on_step_end(self, *_arguments: Any, **_keywords: Any) -> None:
            now = time.perf_counter()
            self.seconds.append(now - self._last)
            self._last = now
            self.growth = (_status("VmHWM") - self._before) / 1000

    return Watch()


def _status(name: str) -> int:
    """Kilobytes."""
    return next(
        int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)
    )


def _show(case: str, found: dict[str, Any]) -> None:
    print(f"\n{case}")
    for way, one in found.items():
        low, high = one["range"]
        line = f"  {way:<8}{one['seconds']:>8.3f} s a step ({low:.3f}-{high:.3f})"
        line += f"{one['tokens_per_second']:>9,.0f} tokens/s{one['growth']:>8,} MB grown"
        if "times_as_fast" in one:
            line += f"   {one['times_as_fast']}x as fast, {one['share_of_growth']}x the growth, "
            line += f"loss {one['loss_difference']:.1e}, gradient norm {one['norm_difference']:.1e}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
