"""What it costs to commit a checkpoint: hashes, a manifest and a rename beside writing and fsync; and what training
waits for where it is written in the background.

    python bench/checkpoint.py [--cases lora,full] [--repeats 5] [--folder DIR] [--json FILE]

The model is the small one of bench/sft.py (hidden 512, 8 layers, vocabulary 151,936), `full` with all its weights
trained (1.2 GB with AdamW's states), `lora` with adapters (20 MB). In each repeat, by turns and on the same disk:

    plain       the same files written and synced one after another, nothing else
    commit      `Saver.save`: staging, hashes, manifest, sync of folders, rename
    background  `Saver.save` with `async_save`: how long the call holds up training; and then the whole until committed

Medians and ranges. `share` is what the call holds up of the time between two saves, at 500 steps (transformers'
`save_steps`) of the step's length that bench/loop.py tells for this model (`--step-seconds`).
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from tunesmith.checkpoints.states import save_tree
from tunesmith.core.files import fsync
from tunesmith.train.saving import Saver, SavingSettings
from tunesmith.train.states import copied_where_trained, first_groups, optimizer_trees, size_to_save

STEP_SECONDS = {"lora": 0.67, "full": 1.9}


class Run:
    """A model with an optimizer that has stepped once: what a Trainer would save."""

    def __init__(self, case: str) -> None:
        from transformers import Qwen2Config, Qwen2ForCausalLM

        torch.manual_seed(0)
        config = Qwen2Config(
            hidden_size=512,
            intermediate_size=1408,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=2,
            vocab_size=151_936,
            tie_word_embeddings=True,
        )
        model: Any = Qwen2ForCausalLM(config)
        if case == "lora":
            from peft import LoraConfig, get_peft_model

            targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
            model = get_peft_model(model, LoraConfig(r=64, target_modules=targets))
        self.model = model
        self.optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-4)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1.0)
        for group in self.optimizer.param_groups:
            for weight in group["params"]:
                weight.grad = torch.full_like(weight, 1e-3)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.first = first_groups(self.optimizer)

    def write_small_states(self, folder: Path) -> None:
        save_tree(folder, "progress", {"seconds": 1.0})

    def weights_to_save(self) -> dict[str, Any]:
        return copied_where_trained(self.model)

    def write_weights(self, folder: Path, weights: Any = None) -> None:
        self.model.save_pretrained(folder, state_dict=weights)

    def large_states(self) -> dict[str, Any]:
        return optimizer_trees(self.optimizer, self.schedule, None, self.first)

    def bytes_to_save(self) -> int:
        return size_to_save(self.model, self.optimizer)


def plain(run: Run, folder: Path) -> float:
    """Seconds to write and sync the same files, one after another."""
    begun = time.perf_counter()
    folder.mkdir()
    optimizer = folder / "optimizer.safetensors"
    run.write_small_states(folder)
    run.write_weights(folder)
    states = run.optimizer.state_dict()["state"]
    save_file({f"{number}.{name}": one for number, state in states.items() for name, one in state.items()}, optimizer)
    for file in sorted(folder.iterdir()):
        fsync(file)
    fsync(folder)
    fsync(folder.parent)
    return time.perf_counter() - begun


def commit(run: Run, folder: Path) -> float:
    begun = time.perf_counter()
    Saver(SavingSettings(), lambda numbers: np.asarray([numbers]), main=True).save(run, folder, 1, None)
    return time.perf_counter() - begun


def background(run: Run, folder: Path) -> tuple[float, float]:
    """Seconds until training may go on, and until the checkpoint is there."""
    begun = time.perf_counter()
    with Saver(SavingSettings(background=True), lambda numbers: np.asarray([numbers]), main=True) as saver:
        saver.save(run, folder, 1, None)
        held_up = time.perf_counter() - begun
    return held_up, time.perf_counter() - begun


def measure(case: str, repeats: int, root: Path) -> dict[str, Any]:
    run = Run(case)
    seconds: dict[str, list[float]] = {"plain": [], "commit": [], "held_up": [], "background": []}

    def fresh(action: Callable[[Run, Path], Any]) -> Any:
        folder = root / "checkpoint-1"
        shutil.rmtree(folder, ignore_errors=True)
        found = action(run, folder)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        shutil.rmtree(folder)
        return found, size

    size = fresh(plain)[1]  # the first of all finds cold caches
    for _ in range(repeats):
        seconds["plain"].append(fresh(plain)[0])
        seconds["commit"].append(fresh(commit)[0])
        held_up, whole = fresh(background)[0]
        seconds["held_up"].append(held_up)
        seconds["background"].append(whole)
    return {"bytes": size, "seconds": seconds, "step_seconds": STEP_SECONDS[case]}


def table(found: dict[str, Any]) -> str:
    lines = [
        "| case | size | plain + fsync | commit | ratio | held up by async_save | share of 500 steps |",
        "|---|---|---|---|---|---|---|",
    ]
    for case, one in found.items():
        middle = {name: statistics.median(values) for name, values in one["seconds"].items()}
        ratios = [a / b for a, b in zip(one["seconds"]["commit"], one["seconds"]["plain"], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        share = middle["held_up"] / (500 * one["step_seconds"])
        lines.append(
            f"| {case} | {one['bytes'] / 1e6:,.0f} MB | {middle['plain']:.2f} s | {middle['commit']:.2f} s | {spread} "
            f"| {middle['held_up'] * 1000:,.0f} ms | {share:.2%} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default="lora,full")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to write: the disk that is measured")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for case in options.cases.split(","):
            found[case] = measure(case, options.repeats, Path(folder))
    print(table(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
