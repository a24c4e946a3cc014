"""How far memory grows while SmolLM2-135M is fine-tuned, by method and optimizer.

    python bench/memory_methods.py [--steps 3] [--repeats 1] [--only NAME ...] [--json FILE]
    python scripts/generate_optimizers_doc.py

Each case is a process of its own on the same rows: 4 of at most 256 tokens a step, in float32 on the processor, with
activations recomputed. `growth` is the peak of the resident memory in training minus what a forward pass over all
weights had left before: gradients, states of the optimizer and activations. `peak` is all of it, with weights and
libraries. Results are written into bench/results/memory_methods.json, case by case.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import child
from sft_inputs import Case, make_inputs

RESULTS = Path(__file__).parent / "results" / "memory_methods.json"
FULL = {"finetuning_type": "full"}
LORA = {"finetuning_type": "lora", "lora_rank": 8}
# Name -> keys. `in backward`: gradients are let go one by one, which is what small states are worth most with.
CASES: dict[str, dict[str, Any]] = {
    "full": FULL,
    "full, states of 8 bits": {**FULL, "optim": "adamw_8bit"},
    "full, Adafactor": {**FULL, "optim": "adafactor"},
    "full, Lion": {**FULL, "optim": "lion"},
    "full, Muon": {**FULL, "use_muon": True},
    "full, Adam-mini": {**FULL, "use_adam_mini": True},
    "GaLore, rank 128": {**FULL, "use_galore": True, "galore_rank": 128},
    "GaLore, rank 128, in backward": {**FULL, "use_galore": True, "galore_rank": 128, "galore_layerwise": True},
    "APOLLO, rank 128": {**FULL, "use_apollo": True, "apollo_rank": 128},
    "APOLLO-Mini, in backward": {
        **FULL,
        "use_apollo": True,
        "apollo_rank": 1,
        "apollo_scale_type": "tensor",
        "apollo_scale": 128.0,
        "apollo_layerwise": True,
    },
    "BAdam": {**FULL, "use_badam": True, "badam_switch_interval": 2},
    "BAdam, share of 5%": {**FULL, "use_badam": True, "badam_mode": "ratio"},
    "freeze, last 2 layers": {"finetuning_type": "freeze"},
    "LoRA": LORA,
    "QLoRA, 4 bits": {**LORA, "quantization_bit": 4},
    "OFT": {"finetuning_type": "oft"},
    "LoRA, hidden states offloaded": {**LORA, "gradient_checkpointing_mode": "offload"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=list(CASES))
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--child", help=argparse.SUPPRESS)  # the process that is measured
    options = parser.parse_args()
    if options.child:
        _child(json.loads(options.child))
        return
    found = json.loads(options.json.read_text(encoding="utf-8")) if options.json.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        inputs = make_inputs(Path(folder), Case("smollm"), options.steps)
        keys = {"model_name_or_path": str(inputs.model), "dataset": str(inputs.rows), "template": inputs.template}
        keys |= {"cutoff_len": 256, "max_steps": options.steps, "disable_shuffling": True}
        keys |= {"per_device_train_batch_size": 4, "output_dir": str(Path(folder) / "out"), "learning_rate": 1e-5}
        for name in options.only or CASES:
            runs = [child.run(__file__, {**keys, **CASES[name]}) for _ in range(options.repeats)]
            found[name] = {key: round(statistics.median(run[key] for run in runs), 1) for key in ("peak", "growth")}
            ordered = {one: found[one] for one in CASES if one in found}
            options.json.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
            print(f"{name:<34}{found[name]['growth']:>8,.0f} MB grown", flush=True)


def _child(changes: dict[str, Any]) -> None:
    from peers.watch import Watch

    watch = Watch()
    child.train({"use_cpu": True, "memory_probe": False, **changes}, watch)
    watch.print_report()


if __name__ == "__main__":
    main()
