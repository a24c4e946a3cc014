"""How far memory grows in a step of fine-tuning, by what is kept of the activations and when the optimizer steps.

    python bench/memory.py [--shape small] [--repeats 3] [--steps 3] [--json FILE]

Each way is a process of its own, by turns, on the same rows: all parameters of a model in the shape of Qwen2 with
random weights (`small` of bench/sft.py; `tiny` tries the script out), in flat batches. Growth is the peak of memory in
training minus what a forward pass over all weights had left; states of the optimizer are part of it. `offload` is not
among the ways: without a GPU there is no other memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import child
from sft_inputs import SHAPES, Case, make_inputs

WAYS: dict[str, dict[str, Any]] = {
    "all activations kept": {"disable_gradient_checkpointing": True},
    "selective": {"gradient_checkpointing_mode": "selective"},
    "full": {"use_reentrant_gc": False},
    "full, re-entrant": {},
    "full, optimizer in backward": {"use_reentrant_gc": False, "optimizer_in_bwd": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="small", choices=list(SHAPES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)  # the process that is measured
    options = parser.parse_args()
    if options.child:
        _child(json.loads(options.child))
        return
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        inputs = make_inputs(Path(folder), Case(options.shape, lora=False), options.steps)
        keys = {"model_name_or_path": str(inputs.model), "dataset": str(inputs.rows), "template": inputs.template}
        keys |= {"cutoff_len": 1024, "max_steps": options.steps, "disable_shuffling": True}
        keys |= {"per_device_train_batch_size": len(inputs.lengths[0]), "output_dir": str(Path(folder) / "out")}
        for _ in range(options.repeats):
            for way, changes in WAYS.items():
                runs[way].append(child.run(__file__, {**keys, **changes}))
    for way, results in runs.items():
        growth = statistics.median(one["growth"] for one in results)
        seconds = statistics.median(statistics.median(one["seconds"]) for one in results)
        loss = results[0]["losses"][-1]
        print(f"{way:<30}{growth:>8,.0f} MB grown{seconds:>8.3f} s a step   last loss {loss}")
    if options.json:
        options.json.write_text(json.dumps(runs, indent=1) + "\n")


def _child(changes: dict[str, Any]) -> None:
    from peers.watch import Watch

    watch = Watch()
    keys = {"finetuning_type": "full", "max_grad_norm": 0, "optim": "sgd", "fast_path": "require", "use_cpu": True}
    child.train({**keys, **changes}, watch)
    watch.print_report()


if __name__ == "__main__":
    main()
