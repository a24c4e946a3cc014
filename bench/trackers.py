"""What services that are down or slow cost a run: those it reports to (`report_to`), and the hub it uploads to.

    python bench/trackers.py [--repeats 5] [--steps 60] [--ways refuse,broken,hang] [--json FILE]
    python bench/trackers.py --table FILE

A server on this machine stands for the service: it answers with an error, with nothing for as long as it is asked, or
as it should. A run of stories260K (all weights, a checkpoint every tenth step) has its service from the middle on: the
figure is the median time of a step in its second half over that in its first, so that two processes, which differ by a
fifth on some machines, need not be compared. `none` is the same for a run without any service. Steps that save wait for
the disk, and are outside of the median. "Held up" is the share of the time in which events and checkpoints are handed
over, by a clock around those calls. Set OMP_NUM_THREADS below the number of cores: the process that uploads needs one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import urllib.request
from itertools import pairwise
from pathlib import Path
from typing import Any

import child
from loop import STORIES
from sft_inputs import CASES, make_inputs

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.stand_in_hub import StandInHub  # found by the line before

WAYS = {"well": "answers", "refuse": "answers 403", "broken": "answers 500", "hang": "never answers"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--ways", default="well,broken,hang")
    parser.add_argument("--services", default="report,upload")
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
    with tempfile.TemporaryDirectory() as folder:
        found = measure(
            _keys(Path(folder), options.steps), options.services.split(","), options.ways.split(","), options.repeats
        )
    print(table(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def _keys(folder: Path, steps: int) -> dict[str, Any]:
    case = CASES["small-full"]
    inputs = make_inputs(folder, case, steps)
    return {
        "model_name_or_path": str(STORIES),
        "template": "default",
        "finetuning_type": "full",
        "dataset": str(inputs.rows),
        "cutoff_len": 1024,
        "per_device_train_batch_size": case.batch,
        "max_steps": steps,
        "save_strategy": "steps",
        "save_steps": 10,
        "save_total_limit": 2,
        "output_dir": str(folder / "out"),
    }


def measure(keys: dict[str, Any], services: list[str], ways: list[str], repeats: int) -> dict[str, Any]:
    """Service and way -> for each run [second half over first half, share held up]; by turns."""
    found: dict[str, Any] = {}
    for _ in range(repeats):
        for service, way in [("none", "well"), *((service, way) for service in services for way in ways)]:
            server = StandInHub(way)
            try:
                told = child.run(__file__, {**keys, "service": service, "address": server.address})
            finally:
                server.close()
            found.setdefault(f"{service} {way}", []).append([told["ratio"], told["held"]])
    return found


def table(found: dict[str, Any]) -> str:
    """Markdown: a row a service and way."""
    lines = ["| the run | its service | held up by it | time of a step, without it = 1 |", "|---|---|---|---|"]
    names = {"none": "has no service", "report": "reports each step", "upload": "uploads checkpoints"}
    for name, pairs in found.items():
        ratios, held = zip(*pairs, strict=True)
        service, way = name.split()
        cell = f"{statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})"
        lines.append(
            f"| {names[service]} | {WAYS[way] if service != 'none' else ''} | {100 * max(held):.3f} % | {cell} |"
        )
    return "\n".join(lines)


def _child(config: dict[str, Any]) -> None:
    """One run: how long its steps take in the second half, with the service, over the first."""
    service, address = config.pop("service"), config.pop("address")
    keys = {"seed": 1, "use_cpu": True, "learning_rate": 1e-4, **config}
    half = keys["max_steps"] // 2
    if service == "report":
        _report_to(address, half)
    if service == "upload":
        os.environ |= {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        keys |= {"push_to_hub": True, "hub_token": "hf_of_nobody"}
        _upload_from(half)
    clock = _clock()
    _time_what_is_handed_over()
    child.train(keys, clock)
    steps = [end - begin for begin, end in pairwise(clock.times)]
    before, after = steps[: half - 1], steps[half:]
    held = sum(HELD) / sum(after)
    print(json.dumps({"held": held, "ratio": statistics.median(after) / statistics.median(before)}))


def _report_to(address: str, half: int) -> None:
    """An integration as those of transformers: asks at every step of the second half, and waits for the answer."""
    from transformers import TrainerCallback

    class Service(TrainerCallback):  # type: ignore[misc]
        def on_log(self, _args: Any, state: Any, _control: Any, logs: Any = None, **_: Any) -> None:
            if state.global_step <= half:
                return
            urllib.request.urlopen(urllib.request.Request(address, json.dumps(logs).encode()), timeout=30).close()

    Service.__module__ = "transformers.integrations.of_the_bench"
    import transformers.trainer

    transformers.trainer.get_reporting_integration_callbacks = lambda _: [Service]
    from tunesmith.train import trackers

    trackers.WAIT = 0.1  # the end of the run is not measured


def _upload_from(half: int) -> None:
    """Checkpoints of the second half are uploaded. What waits at the start and the end of a run is not measured."""
    from tunesmith.train import uploads

    original = uploads.Uploads.checkpoint

    def checkpoint(self: Any, folder: Path, files: Any) -> None:
        if int(folder.name.rpartition("-")[2]) >= half:
            original(self, folder, files)

    uploads.Uploads.checkpoint = checkpoint  # type: ignore[method-assign]
    uploads.FIRST_ANSWER = 0.5
    uploads.Uploads.finish = lambda self: None  # type: ignore[method-assign]


HELD: list[float] = []
"""Seconds of each call by which the run hands something over to a service."""


def _time_what_is_handed_over() -> None:
    from tunesmith.train.trackers import Tracker
    from tunesmith.train.uploads import Uploads

    def timed(original: Any) -> Any:
        def call(*arguments: Any) -> None:
            begin = time.perf_counter()
            original(*arguments)
            HELD.append(time.perf_counter() - begin)

        return call

    Tracker.put = timed(Tracker.put)  # type: ignore[method-assign]
    Uploads.checkpoint = timed(Uploads.checkpoint)  # type: ignore[method-assign]


def _clock() -> Any:
    """A callback with the `times` at which steps began, but the first, and at which training ended."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        times: list[float] = []  # noqa: RUF012  # one run a process

        def on_step_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            if state.global_step:
                self.times.append(time.perf_counter())

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.times.append(time.perf_counter())

    return Clock()


if __name__ == "__main__":
    main()
