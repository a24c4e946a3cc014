"""How long a run with pictures waits for them: none, one or two loader processes.

    python bench/media_loading.py [--pixels 512] [--pictures 64] [--steps 24] [--batch 4] [--workers 0,1,2]

A model in the shape of LLaVA with random weights (a CLIP tower of two layers, the language model of tests/seeing.py) is
trained on JPEG files of noise. Each number of processes is a run of its own. `waiting` is the share of the time of all
steps in which the training waited for a batch (`data_wait_seconds` of docs/logs.md).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import child

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
ASSETS = Path(os.environ.get("TUNESMITH_ASSETS") or ROOT / ".." / "shared" / "assets")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pixels", type=int, default=512, help="width and height of a picture")
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--workers", default="0,1,2")
    parser.add_argument("--child", help=argparse.SUPPRESS)  # the process that is measured
    options = parser.parse_args()
    if options.child:
        keys = json.loads(options.child)
        child.train(keys)
        print((Path(keys["output_dir"]) / "train_results.json").read_text().replace("\n", " "))
        return
    print("| loader processes | samples a second | waiting |")
    print("|---|---|---|")
    with tempfile.TemporaryDirectory() as told:
        folder = Path(told)
        os.environ["TUNESMITH_DATA_CACHE"] = str(folder / "cache")
        model, rows = make_inputs(folder, options)
        for workers in map(int, options.workers.split(",")):
            out = folder / f"out-{workers}"
            found = child.run(
                __file__,
                {
                    "model_name_or_path": str(model),
                    "dataset": str(rows),
                    "stage": "sft",
                    "finetuning_type": "full",
                    "output_dir": str(out),
                    "per_device_train_batch_size": options.batch,
                    "dataloader_num_workers": workers,
                    "max_steps": options.steps,
                    "save_strategy": "no",
                    "use_cpu": True,
                },
            )
            waiting = found["train_data_wait_seconds"] / found["train_seconds"]
            speed = options.steps * options.batch / found["train_seconds"]
            print(f"| {workers} | {speed:.1f} | {waiting:.1%} |", flush=True)


def make_inputs(folder: Path, options: argparse.Namespace) -> tuple[Path, Path]:
    import numpy as np
    from PIL import Image

    from tests.seeing import seeing_model

    model = seeing_model(folder / "model", ASSETS / "models" / "stories260K", size=128)
    drawn = np.random.default_rng(0)
    rows = []
    for number in range(options.pictures):
        noise = drawn.integers(0, 256, (options.pixels, options.pixels, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.jpg")
        said = [{"role": "user", "content": "<image>It shows"}, {"role": "assistant", "content": " noise"}]
        rows.append({"messages": said, "images": [f"{number}.jpg"]})
    file = folder / "rows.json"
    file.write_text(json.dumps(rows))
    return model, file


if __name__ == "__main__":
    main()
