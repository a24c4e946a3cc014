"""Where the time of a step of fine-tuning goes: shares of matrix products, attention, casts and the rest.

    python bench/profile_step.py [--cases small-lora,small-lora-bf16] [--fast-path require] [--json FILE]

One step of a case of bench/sft.py under PyTorch's profiler, after two steps that warm up. Shares are of the processor
time of operators by themselves (without those that they call).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import child
from sft_inputs import CASES, make_inputs

KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "linear"),
    "attention kernels": (),  # all that begin with _scaled_dot_product
    "casts and copies": ("copy_", "_to_copy", "cat", "fill_", "zero_", "index_select", "index_copy_"),
}
STEP = 3  # the one that is profiled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default="small-lora,small-lora-bf16", help=", ".join(CASES))
    parser.add_argument("--fast-path", default="require", choices=("require", "off"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)  # the process that is measured
    options = parser.parse_args()
    if options.child:
        _child(json.loads(options.child))
        return
    found = {case: _shares(case, options.fast_path) for case in options.cases.split(",")}
    for case, shares in found.items():
        print(f"{case:<18}" + "  ".join(f"{name} {share:.0%}" for name, share in shares.items()))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def _shares(name: str, fast_path: str) -> dict[str, float]:
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        inputs = make_inputs(Path(folder), case, STEP)
        keys: dict[str, Any] = {"model_name_or_path": str(inputs.model), "dataset": str(inputs.rows)}
        keys |= {"template": inputs.template, "cutoff_len": 1024, "disable_shuffling": True, "max_steps": STEP}
        keys |= {"per_device_train_batch_size": case.batch, "output_dir": str(Path(folder) / "out"), "use_cpu": True}
        keys |= {"finetuning_type": "lora" if case.lora else "full", "bf16": case.bf16, "fast_path": fast_path}
        found: dict[str, float] = child.run(__file__, keys)
    return found


def _child(keys: dict[str, Any]) -> None:
    from torch.profiler import ProfilerActivity, profile

    from tunesmith.train.trainer import Trainer

    original, seen, spent = Trainer.training_step, [0], {}

    def step(self: Any, *arguments: Any, **keywords: Any) -> Any:
        seen[0] += 1
        if seen[0] < STEP:
            return original(self, *arguments, **keywords)
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            loss = original(self, *arguments, **keywords)
        spent.update({one.key: one.self_cpu_time_total for one in profiler.key_averages()})
        return loss

    Trainer.training_step = step  # type: ignore[method-assign]
    child.train(keys)
    whole = sum(spent.values())
    shares = dict.fromkeys(KINDS, 0.0)
    for name, time in spent.items():
        kind = _kind(name)
        if kind is not None:
            shares[kind] += time / whole
    print()
    print(json.dumps({**shares, "the rest": 1 - sum(shares.values())}))


def _kind(operator: str) -> str | None:
    if not operator.startswith("aten::"):
        return None
    name = operator.removeprefix("aten::")
    if name.startswith("_scaled_dot_product"):
        return "attention kernels"
    return next((kind for kind, words in KINDS.items() if name in words), None)


if __name__ == "__main__":
    main()
