"""Fine-tuning on a GPU: tokens a second, MFU, peak memory, and the longest context that fits, flat against padded.

    python bench/gpu.py [--shapes qwen3-0.6b,llama-3.1-8b] [--ways padded,flat] [--peer trl=PYTHON]
                        [--batch 4] [--cutoff 4096] [--steps 8] [--repeats 3] [--longest] [--json FILE]

Models have random weights in bfloat16, made here from their makers' published shapes; a LoRA of rank 8 on all linear
layers, gradient checkpointing on. Each run is a process of its own, by turns: `flat` is Tunesmith's own way, with the
attention that `flash_attn: auto` takes; `varlen`, `flex`, `fa2` and `fa3` are flat batches with the one of that name;
`padded` is `fast_path: off` with SDPA, as transformers trains with the logits of all positions. A peer runs in the
environment of that interpreter (bench/peers/), from the same weights, adapter and tokens. Rows are made of words, from
an eighth of `--cutoff` to all of it, the same in all runs. Loss and gradient norm stand beside the speed. `--longest`
tries rows that are twice as long each time until they do not fit, ours only. `--shapes tiny --device cpu` tries the
script out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import child
from sft_inputs import encode

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
FLAT = {"fast_path": "require"}
WAYS = {
    "padded": {"fast_path": "off", "flash_attn": "sdpa"},
    "flat": FLAT,
    "varlen": {**FLAT, "flash_attn": "sdpa"},
    **{name: {**FLAT, "flash_attn": name} for name in ("flex", "fa2", "fa3")},
}
PEERS = {"trl": False, "trl-padding-free": True}
"""Whether its batches are without padding."""
CONTEXT = 131_072
LEARNING_RATE = 1e-4
RANK = 8
NO_ROOM = "E-TRAIN-030"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", default="qwen3-0.6b,llama-3.1-8b", help=", ".join(SHAPES))
    parser.add_argument("--ways", default="padded,flat", help=", ".join(WAYS))
    parser.add_argument("--peer", action="append", default=[], type=_peer, metavar="NAME=PYTHON", help=", ".join(PEERS))
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


def _peer(text: str) -> tuple[str, str]:
    name, _, python = text.partition("=")
    if name not in PEERS or not python:
        raise argparse.ArgumentTypeError(f"{text}: not NAME=PYTHON with a name of {', '.join(PEERS)}")
    return name, python


class _Inputs(NamedTuple):
    """`tokens`: what of the rows a peer reads. `counts`: tokens of each step."""

    model: Path
    adapter: Path
    rows: Path
    tokens: Path
    counts: list[int]


def _shape(shape: str, options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs = _make_inputs(folder, shape, options)
        ways: dict[str, Callable[[], Any]] = {
            way: lambda way=way: child.run(__file__, _keys(inputs, folder, way, options))  # type: ignore[misc]
            for way in options.ways.split(",")
        }
        for name, python in options.peer:
            ways[name] = lambda name=name, python=python: _run_peer(name, python, inputs, folder, options)  # type: ignore[misc]
        runs: dict[str, list[Any]] = {way: [] for way in ways}
        for _ in range(options.repeats):
            for way, run in ways.items():
                runs[way].append(run())
        found = {way: {**_medians(results), "runs": results} for way, results in runs.items()}
        if options.longest:
            for way in options.ways.split(","):
                found[way]["longest"] = _longest(inputs, folder, way, options)
    _show(shape, found, options)
    return found


def _show(shape: str, found: dict[str, Any], options: argparse.Namespace) -> None:
    first, base = next(iter(found.items()))
    print(f"\n{shape}, {base['device']}, batch {options.batch}, cutoff {options.cutoff}")
    for way, one in found.items():
        mfu = "" if one["mfu"] is None else f"  MFU {one['mfu']:.1%}"
        longest = f"  longest row {one['longest']:,}" if "longest" in one else ""
        print(f"  {way:<18}{one['tokens_per_second']:>10,.0f} tokens/s{mfu}  {one['peak_gib']:.1f} GiB{longest}")
        print(f"{'':<20}loss {one['loss']:.5f}, gradient norm {one['norm']:.5f} at step 1, {one['attention']}")
        if one is not base:
            times = one["tokens_per_second"] / base["tokens_per_second"]
            print(f"{'':<20}{times:.2f}x the tokens/s of {first}, {one['peak_gib'] / base['peak_gib']:.2f}x the memory")
    print(end="", flush=True)


def _make_inputs(folder: Path, shape: str, options: argparse.Namespace) -> _Inputs:
    model, adapter = _make_model(folder, shape, options.device)
    rows = _make_rows(folder, options.batch * options.steps, options.cutoff)
    tokens = folder / "tokens.jsonl"
    encoded = encode(folder, json.loads(rows.read_text()), model, "alpaca", options.cutoff)
    tokens.write_text("".join(json.dumps(one) + "\n" for one in encoded))
    sizes = [len(one["input_ids"]) for one in encoded]
    counts = [sum(sizes[at : at + options.batch]) for at in range(0, len(sizes), options.batch)]
    return _Inputs(model, adapter, rows, tokens, counts)


def _make_model(folder: Path, shape: str, device: str) -> tuple[Path, Path]:
    """Weights, and an adapter as PEFT makes it: A is random, B is zero."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    kind, facts = SHAPES[shape]
    target, adapter = folder / shape, folder / "adapter"
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, max_position_embeddings=CONTEXT, **facts)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(ROOT / "tests" / "assets" / "tiny-llama").save_pretrained(target)
    model.name_or_path = str(target)
    lora = LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=2 * RANK, target_modules="all-linear")
    get_peft_model(model, lora).save_pretrained(adapter)
    del model
    if device == "cuda":
        torch.cuda.empty_cache()
    return target, adapter


def _make_rows(folder: Path, count: int, cutoff: int) -> Path:
    """Rows of about an eighth of `cutoff` tokens to all of it, in a fixed order that mixes them."""
    file = folder / f"rows-{count}-{cutoff}.json"
    shares = [1 + 3 * number % 8 for number in range(count)]
    rows = [{"instruction": "Go on.", "input": "", "output": "word " * (cutoff * share // 8)} for share in shares]
    file.write_text(json.dumps(rows))
    return file


def _keys(inputs: _Inputs, folder: Path, way: str, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "model_name_or_path": str(inputs.model),
        "adapter_name_or_path": str(inputs.adapter),
        "dataset": str(inputs.rows),
        "template": "alpaca",
        "finetuning_type": "lora",
        "cutoff_len": options.cutoff,
        "per_device_train_batch_size": options.batch,
        "max_steps": options.steps,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch",
        "disable_shuffling": True,
        "memory_probe": False,
        "bf16": True,
        "use_cpu": options.device == "cpu",
        "output_dir": str(folder / "out"),
        **WAYS[way],
    }


def _run_peer(name: str, python: str, inputs: _Inputs, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    settings = {
        "model": str(inputs.model),
        "adapter": str(inputs.adapter),
        "rows": str(inputs.tokens),
        "batch": options.batch,
        "steps": options.steps,
        "learning_rate": LEARNING_RATE,
        "bf16": True,
        "gradient_checkpointing": True,
        "padding_free": PEERS[name],
        "device": options.device,
        "output_dir": str(folder / "peer"),
    }
    file = folder / f"{name}.json"
    file.write_text(json.dumps(settings))
    script = Path(__file__).parent / "peers" / "trl_sft.py"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [python, str(script), str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = child.last_line(done)
    return {
        "tokens_per_second": sum(inputs.counts[1:]) / sum(found["seconds"]),
        "mfu": None,
        "peak_gib": found["peak"] * 1e6 / 2**30,
        "loss": found["losses"][0],
        "norm": found["norms"][0],
        "device": "",
        "attention": f"TRL {found['versions']['trl']}",
    }


def _longest(inputs: _Inputs, folder: Path, way: str, options: argparse.Namespace) -> int:
    """Tokens of the longest row, doubled each time, that is trained on without running out of memory."""
    length, best = options.cutoff, 0
    while length <= CONTEXT:
        rows = _make_rows(folder, 8, length)  # one of them is whole
        alone = argparse.Namespace(**{**vars(options), "cutoff": length, "batch": 1, "steps": 8})
        keys = _keys(inputs._replace(rows=rows), folder, way, alone)
        if child.run(__file__, {**keys, "_may_run_out": True}).get("out_of_memory"):
            break
        best, length = length, 2 * length
    return best


def _medians(results: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("tokens_per_second", "peak_gib", "mfu")
    values = {name: [one[name] for one in results if one[name] is not None] for name in names}
    found = {name: statistics.median(some) if some else None for name, some in values.items()}
    return {**found, **{name: results[0][name] for name in ("device", "loss", "norm", "attention")}}


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
    plan = json.loads((Path(keys["output_dir"]) / "plan.json").read_text())
    mfu = [one["mfu"] for one in steps[1:] if "mfu" in one]
    report = {
        "tokens_per_second": tokens / sum(one["seconds"] for one in steps[1:]),
        "mfu": statistics.median(mfu) if mfu else None,
        "peak_gib": steps[-1]["peak_memory_gib"],
        "loss": steps[0]["loss"],
        "norm": steps[0]["grad_norm"],
        "device": torch.cuda.get_device_name() if not keys["use_cpu"] else "CPU",
        "attention": f"{plan['batches']} batches, {plan['attention']}",
    }
    print()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
