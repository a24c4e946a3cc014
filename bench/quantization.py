"""What quantized weights take and cost: bytes of each weight, and seconds of a step of LoRA, by kind of quantization.

    python bench/quantization.py [--steps 2] [--kinds KIND ...] [--json bench/results/quantization.json]

SmolLM2-135M-Instruct (as `tunesmith demo` gets it) in bfloat16, one thread of a CPU, a batch of 1 x 128 tokens,
activations of all layers computed again. Told is the fastest of the steps, in seconds of the processor, so that what
else runs matters little. Bytes are those of the linear layers of the blocks, with all scales.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

KINDS: dict[str, dict[str, Any]] = {
    "none": {},
    "bnb4 (nf4)": {"quantization_bit": 4, "double_quantization": False},
    "bnb4 (nf4, double)": {"quantization_bit": 4},
    "bnb8": {"quantization_bit": 8},
    **{f"hqq{bits}": {"quantization_method": "hqq", "quantization_bit": bits} for bits in (3, 4, 8)},
    "torchao_int8": {"quantization_method": "torchao", "quantization_bit": 8},
    "torchao_fp8": {"quantization_method": "torchao", "quantization_bit": 8, "quantization_type": "fp8"},
}


def main() -> None:
    import torch

    from tunesmith.models.demo import demo_model

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--json", type=Path, help="of kinds that are not measured now, what it holds is kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = demo_model(lambda message: None)
    known = options.json is not None and options.json.exists()
    found = {run["kind"]: run for run in json.loads(options.json.read_text(encoding="utf-8"))} if known else {}
    for kind in options.kinds:
        found[kind] = {"kind": kind, **_measured(folder, KINDS[kind], options.steps)}
        print(found[kind], flush=True)
    if options.json:
        runs = [found[kind] for kind in KINDS if kind in found]
        options.json.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")


def _measured(folder: Path, keys: dict[str, Any], steps: int) -> dict[str, float]:
    import torch

    from tunesmith import load_config
    from tunesmith.methods.base import Given
    from tunesmith.methods.lora import Lora
    from tunesmith.models.load import load
    from tunesmith.models.quantization.plan import base_of
    from tunesmith.models.quantization.weights import parts_of

    train = {"dataset": "d", "output_dir": "o", "use_cpu": True, "bf16": True, "lora_rank": 8}
    config = load_config({"model_name_or_path": str(folder), **train, **keys})
    loaded = load(config.model, dtype="bfloat16", quantization=base_of(config, "cpu"))
    weights = sum(
        layer.in_features * layer.out_features
        for name, layer in loaded.model.named_modules()
        if ".layers." in name and hasattr(layer, "in_features")
    )
    parts = [one for name, one in parts_of(loaded.model) if ".layers." in name and "norm" not in name]
    size = sum(one.numel() * one.element_size() for one in parts)
    loaded.model.gradient_checkpointing_enable({"use_reentrant": False})
    model = Lora(config.method).apply(loaded.model, Given(loaded.family)).train()
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-4)
    ids = torch.randint(1000, (1, 128), generator=torch.Generator().manual_seed(0))
    seconds = []
    for _ in range(steps):
        begin = time.process_time()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.process_time() - begin)
    return {"bytes_per_weight": round(size / weights, 3), "seconds": round(min(seconds), 2)}


if __name__ == "__main__":
    main()
