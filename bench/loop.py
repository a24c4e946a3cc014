"""What a training step spends outside forward, backward and optimizer, and how long it waits for data.

    python bench/loop.py [--cases small-lora,small-full,stories-full] [--repeats 3] [--steps 8] [--json FILE]
    python bench/loop.py --table FILE

Each run is a process of its own. Two clocks measure the same steps: that of the run (`overhead_share` and
`data_wait_seconds` of its log), and one of this script around the forward of the model with its loss, the backward, the
clipping, `optimizer.step` and `zero_grad`; what is left between the ends of two steps is the loop's. `counting` is the
time to count tokens and FLOPs. Models are those of bench/sft.py, and stories260K of the test assets, whose steps are so
short that the loop is a large part of them. Medians of the steps but the first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import child
from sft_inputs import ASSETS, CASES, make_inputs

STORIES = ASSETS / "models" / "stories260K"
FIGURES = ("seconds", "outside", "overhead", "wait", "counting")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default="small-lora,small-full,stories-full")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path, help="print the Markdown table of a JSON file of this script")
    parser.add_argument("--child", help=argparse.SUPPRESS)  # the process that is measured
    options = parser.parse_args()
    if options.child:
        _child(json.loads(options.child))
        return
    if options.table:
        print(table(json.loads(options.table.read_text())))
        return
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in options.cases.split(","):
            found[case] = measure(_case(case, Path(folder), options.steps), options.repeats)
    print(table(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def _case(name: str, folder: Path, steps: int) -> dict[str, Any]:
    """Keys of a run with the model and rows of a case of bench/sft.py; stories-full has the rows of small-full."""
    stories = name == "stories-full"
    case = CASES["small-full" if stories else name]
    inputs = make_inputs(folder, case, steps)
    found = {"finetuning_type": "lora" if case.lora else "full", "dataset": str(inputs.rows), "cutoff_len": 1024}
    found |= {"per_device_train_batch_size": case.batch, "max_steps": steps, "output_dir": str(folder / "out")}
    model, template = (STORIES, "default") if stories else (inputs.model, inputs.template)
    return {**found, "model_name_or_path": str(model), "template": template, "bf16": case.bf16}


def measure(run: dict[str, Any], repeats: int) -> dict[str, Any]:
    runs = []
    for _ in range(repeats):
        runs.append(child.run(__file__, run))
    medians = {name: [statistics.median(step[name] for step in steps) for steps in runs] for name in FIGURES}
    return {name: {"median": statistics.median(of), "range": [min(of), max(of)]} for name, of in medians.items()}


def table(found: dict[str, Any]) -> str:
    """Markdown: a row a case."""
    lines = [
        "| case | a step | outside forward, backward, optimizer | the same by the run's own clock | waiting for data "
        "| counting |",
        "|---|---|---|---|---|---|",
    ]
    for case, figures in found.items():
        cells = [f"{figures['seconds']['median']:.3g} s", *(_share(figures[name]) for name in FIGURES[1:])]
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _share(figure: dict[str, Any]) -> str:
    low, high = figure["range"]
    return f"{figure['median']:.2%} ({low:.2%}-{high:.2%})".replace("%", " %")


def _child(config: dict[str, Any]) -> None:
    """One run: the figures of each step but the first."""
    watch = _watch()
    child.train({"seed": 1, "use_cpu": True, "learning_rate": 1e-4, "fast_path": "require", **config})
    lines = [json.loads(one) for one in (Path(config["output_dir"]) / "trainer_log.jsonl").read_text().splitlines()]
    steps = []
    for line, (seconds, inside, counting) in zip(lines, watch.steps, strict=True):
        wait = line["data_wait_seconds"] / line["seconds"]
        outside = 1 - inside / seconds
        shares = (seconds, outside, line["overhead_share"], wait, counting / seconds)
        steps.append(dict(zip(FIGURES, shares, strict=True)))
    print(json.dumps(steps[1:]))


def _watch() -> Any:
    """A clock of our own around what is inside a step, put there before the run begins."""
    from transformers import TrainerCallback

    from tunesmith.train.throughput import Throughput
    from tunesmith.train.trainer import Trainer

    class Watch(TrainerCallback):  # type: ignore[misc]
        """(seconds, of these inside, of these counting) of each step."""

        def __init__(self) -> None:
            self.steps: list[tuple[float, float, float]] = []
            self.inside = self.counting = 0.0

        def on_train_begin(self, *_arguments: Any, model: Any, optimizer: Any, **_keywords: Any) -> None:
            _wrap(optimizer, "step", self.timed)
            _wrap(model, "zero_grad", self.timed)
            self.last = time.perf_counter()

        def on_step_end(self, *_arguments: Any, **_keywords: Any) -> None:
            now = time.perf_counter()
            self.steps.append((now - self.last, self.inside, self.counting))
            self.last, self.inside, self.counting = now, 0.0, 0.0

        @contextmanager
        def timed(self) -> Iterator[None]:
            begin = time.perf_counter()
            yield
            self.inside += time.perf_counter() - begin

        @contextmanager
        def counted(self) -> Iterator[None]:
            begin = time.perf_counter()
            yield
            self.counting += time.perf_counter() - begin

    watch, original = Watch(), Trainer.train

    def train(self: Any, *arguments: Any, **keywords: Any) -> Any:
        self.add_callback(watch)
        _wrap(self.accelerator, "backward", watch.timed)
        return original(self, *arguments, **keywords)

    Trainer.train = train  # type: ignore[method-assign]
    for name in ("compute_loss", "_clip_grad_norm"):
        _wrap(Trainer, name, watch.timed)
    for name in ("work_of", "add", "event", "on_step_end"):
        _wrap(Throughput, name, watch.counted)
    return watch


def _wrap(owner: Any, name: str, timed: Any) -> None:
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        with timed():
            return original(*arguments, **keywords)

    setattr(owner, name, wrapped)


if __name__ == "__main__":
    main()
