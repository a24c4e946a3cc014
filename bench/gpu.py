"""Fine-tuning on a GPU: tokens a second, MFU, peak memory, and the longest context that fits, flat against padded.

    python bench/gpu.py [--shapes qwen3-0.6b,llama-3.1-8b] [--batch 4] [--cutoff 4096] [--steps 8] [--repeats 3]
                        [--longest] [--json FILE]

Models have random weights in bfloat16, made here from their makers' published shapes; a LoRA of rank 8 on all linear
layers, gradient checkpointing on. Each run is a process of its own, by turns: `flat` is Tunesmith's own way, `padded`
is `fast_path: off` with SDPA, as transformers trains with the logits of all positions. Rows are made of words, from an
eighth of `--cutoff` to all of it, the same in all runs. Loss and gradient norm stand beside the speed. `--longest`
tries rows that are twice as long each time until they do not fit. `--shapes tiny --device cpu` tries the script out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import child

ROOT = Path(__file__).resolve().parents[1]
LLAMA = {"hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32, "num_attention_heads": 32}
QWEN3 = {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16}
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny": ("qwen3", {**TINY, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 1024}),
    "qwen3-0.6b": (
        "qwen3",
        {**QWEN3, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936, "tie_word_embeddings": True},
    ),
    "llama-3.1-8b": ("llama", {**LLAMA, "num_key_value_heads": 8, "vocab_size": 128_256}),
}
WAYS = {"padded": {"fast_path": "off", "flash_attn": "sdpa"}, "flat": {"fast_path": "require"}}
CONTEXT = 131_072
NO_ROOM = "E-TRAIN-030"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", default="qwen3-0.6b,llama-3.1-8b", help=", ".join(SHAPES))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--cutoff", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--longest", action="store_true")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)  # the process that is measured
    options = parser.parse_args()
    if options.child:
        _child(json.loads(options.child))
        return
    found = {shape: _shape(shape, options) for shape in options.shapes.split(",")}
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def _shape(shape: str, options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = _make_model(folder, shape, options.device)
        rows = _make_rows(folder, options.batch * options.steps, options.cutoff)
        runs: dict[str, list[Any]] = {way: [] for way in WAYS}
        for _ in range(options.repeats):
            for way in WAYS:
                runs[way].append(child.run(__file__, _keys(model, rows, folder, way, options)))
        found = {way: {**_medians(results), "runs": results} for way, results in runs.items()}
        if options.longest:
            for way, one in found.items():
                one["longest"] = _longest(model, folder, way, options)
    print(f"\n{shape}, {found['flat']['device']}, batch {options.batch}, cutoff {options.cutoff}")
    for way, one in found.items():
        mfu = "" if one["mfu"] is None else f"  MFU {one['mfu']:.1%}"
        longest = f"  longest row {one['longest']:,}" if "longest" in one else ""
        print(f"  {way:<8}{one['tokens_per_second']:>10,.0f} tokens/s{mfu}  {one['peak_gib']:.1f} GiB{longest}")
        print(f"          loss {one['loss']:.5f}, gradient norm {one['norm']:.5f} at step 1")
    flat, padded = found["flat"], found["padded"]
    times = flat["tokens_per_second"] / padded["tokens_per_second"]
    print(f"  flat: {times:.2f}x the tokens/s, {flat['peak_gib'] / padded['peak_gib']:.2f}x the memory", flush=True)
    return found


def _make_model(folder: Path, shape: str, device: str) -> Path:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    kind, facts = SHAPES[shape]
    target = folder / shape
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, max_position_embeddings=CONTEXT, **facts)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(ROOT / "tests" / "assets" / "tiny-llama").save_pretrained(target)
    del model
    if device == "cuda":
        torch.cuda.empty_cache()
    return target


def _make_rows(folder: Path, count: int, cutoff: int) -> Path:
    """Rows of about an eighth of `cutoff` tokens to all of it, in a fixed order that mixes them."""
    file = folder / f"rows-{count}-{cutoff}.json"
    shares = [1 + 3 * number % 8 for number in range(count)]
    rows = [{"instruction": "Go on.", "input": "", "output": "word " * (cutoff * share // 8)} for share in shares]
    file.write_text(json.dumps(rows))
    return file


def _keys(model: Path, rows: Path, folder: Path, way: str, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "model_name_or_path": str(model),
        "dataset": str(rows),
        "template": "alpaca",
        "finetuning_type": "lora",
        "lora_rank": 8,
        "cutoff_len": options.cutoff,
        "per_device_train_batch_size": options.batch,
        "max_steps": options.steps,
        "disable_shuffling": True,
        "memory_probe": False,
        "bf16": True,
        "use_cpu": options.device == "cpu",
        "output_dir": str(folder / "out"),
        **WAYS[way],
    }


def _longest(model: Path, folder: Path, way: str, options: argparse.Namespace) -> int:
    """Tokens of the longest row, doubled each time, that is trained on without running out of memory."""
    length, best = options.cutoff, 0
    while length <= CONTEXT:
        rows = _make_rows(folder, 8, length)  # one of them is whole
        alone = argparse.Namespace(**{**vars(options), "cutoff": length, "batch": 1, "steps": 8})
        if child.run(__file__, {**_keys(model, rows, folder, way, alone), "_may_run_out": True}).get("out_of_memory"):
            break
        best, length = length, 2 * length
    return best


def _medians(results: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("tokens_per_second", "peak_gib", "mfu")
    values = {name: [one[name] for one in results if one[name] is not None] for name in names}
    found = {name: statistics.median(some) if some else None for name, some in values.items()}
    return {**found, **{name: results[0][name] for name in ("device", "loss", "norm")}}


def _child(keys: dict[str, Any]) -> None:
    """One run; its speed is that of all steps but the first, by the log."""
    import torch

    from tunesmith.core.errors import TunesmithError

    may_run_out = keys.pop("_may_run_out", False)
    try:
        child.train(keys)
    except TunesmithError as error:
        if not may_run_out or error.code != NO_ROOM:
            raise
        print(json.dumps({"out_of_memory": True}))
        return
    text = (Path(keys["output_dir"]) / "trainer_log.jsonl").read_text()
    steps = [one for one in map(json.loads, text.splitlines()) if "loss" in one]
    tokens = steps[-1]["tokens"] - steps[0]["tokens"]
    mfu = [one["mfu"] for one in steps[1:] if "mfu" in one]
    report = {
        "tokens_per_second": tokens / sum(one["seconds"] for one in steps[1:]),
        "mfu": statistics.median(mfu) if mfu else None,
        "peak_gib": steps[-1]["peak_memory_gib"],
        "loss": steps[0]["loss"],
        "norm": steps[0]["grad_norm"],
        "device": torch.cuda.get_device_name() if not keys["use_cpu"] else "CPU",
    }
    print()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
