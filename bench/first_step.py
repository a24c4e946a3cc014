"""How long a run takes to start: what it imports, and the end of its first step, from the start of the process.

    python bench/first_step.py [--runs 5] [--model FOLDER] [--json FILE]

Three processes by turns: `import torch; from transformers import Trainer`, as any training script has it; everything
that a run has imported by its first step, and nothing else; and the run itself, a small LoRA on the model, up to the
end of step 1. Medians. The model is stories260K of the test assets (TUNESMITH_ASSETS) unless another is named.
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
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ASSETS = Path(os.environ.get("TUNESMITH_ASSETS") or ROOT / ".." / "shared" / "assets")
BARE = "import torch; from transformers import Trainer"
IMPORTS = """
import importlib, json, sys
for name in json.load(open(sys.argv[1])):
    importlib.import_module(name)
"""
RUN = """
import json, sys, time
from transformers import TrainerCallback
import tunesmith
from tunesmith.train.trainer import Trainer
class Stop(TrainerCallback):
    def on_step_end(self, *_, **__):
        import os
        with open(sys.argv[2], "w") as file:
            json.dump({"end": time.time(), "modules": list(sys.modules)}, file)
        os._exit(0)
made = Trainer.__init__
def init(self, *arguments, **keywords):
    made(self, *arguments, **keywords)
    self.add_callback(Stop())
Trainer.__init__ = init
tunesmith.train(json.load(open(sys.argv[1])))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--model", type=Path, default=ASSETS / "models" / "stories260K")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.model, Path(folder), options.runs)
    bare, imports, step = (statistics.median(found[name]) for name in ("bare", "imports", "first step"))
    for name, values in found.items():
        print(f"{name:<12}{statistics.median(values):7.2f} s  ({min(values):.2f}-{max(values):.2f})")
    print(f"imports: {imports / bare:.2f} of bare ones; first step: imports + {step - imports:.2f} s")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def measure(model: Path, folder: Path, runs: int) -> dict[str, list[float]]:
    """Seconds from the start of the process, after one round that fills caches and tells what a run imports."""
    rows = [{"instruction": f"Say {n}", "input": "", "output": f"Once there were {n} cats."} for n in range(64)]
    (folder / "rows.json").write_text(json.dumps(rows))
    keys: dict[str, Any] = {"model_name_or_path": str(model), "dataset": str(folder / "rows.json")}
    keys |= {"template": "alpaca", "finetuning_type": "lora", "stage": "sft", "max_steps": 2, "use_cpu": True}
    keys |= {"output_dir": str(folder / "out"), "overwrite_output_dir": True, "report_to": "none"}
    (folder / "run.json").write_text(json.dumps(keys))
    found: dict[str, list[float]] = {"bare": [], "imports": [], "first step": []}
    for number in range(runs + 1):
        step = _run_to_first_step(folder)
        bare = _seconds([sys.executable, "-c", BARE])
        imports = _seconds([sys.executable, "-c", IMPORTS, str(folder / "modules.json")])
        if number:
            for name, value in zip(found, (bare, imports, step), strict=True):
                found[name].append(round(value, 3))
    return found


def _seconds(command: list[str]) -> float:
    begin = time.time()
    subprocess.run(command, check=True, capture_output=True)
    return time.time() - begin


def _run_to_first_step(folder: Path) -> float:
    begin = time.time()
    command = [sys.executable, "-c", RUN, str(folder / "run.json"), str(folder / "told.json")]
    environment = {**os.environ, "TUNESMITH_HOME": str(folder / "home")}  # not among the user's runs
    subprocess.run(command, check=True, capture_output=True, env=environment)
    told = json.loads((folder / "told.json").read_text())
    names = [name for name in told["modules"] if name != "__main__"]
    (folder / "modules.json").write_text(json.dumps(names))
    return float(told["end"]) - begin


if __name__ == "__main__":
    main()
