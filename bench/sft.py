"""How fast fine-tuning is, with what memory, and that it computes the same: flat batches, padded, packs, and peers.

    python bench/sft.py [--cases small-lora,...] [--ways padded,flat] [--repeats 3] [--steps 6] [--json FILE]
    python bench/sft.py --peer llamafactory=PYTHON --peer trl=PYTHON --peer trl-padding-free=PYTHON ...
    python bench/sft.py --table FILE.json ... [--json FILE] [--page docs/performance.md]

Each run is a process of its own, by turns, and starts from the same weights, adapter and rows, in the same order, with
the same settings. `padded` is `fast_path: off` (padded batches, the logits of all positions, as transformers trains),
`flat` is `require`; `packed` has the rows of a step in packs (case short-rows). A peer runs in the environment of that
interpreter (bench/peers/). A step is timed from the end of the one before; growth is the peak of memory in training
minus what a forward pass over all weights had left. Medians; loss and gradient norm of every step stand beside the
speed, and where they differ from those of the first way by more than rounding, that is said and the exit code is 1.

`--table` writes what `--json` saved as Markdown; several files count as one with all their runs, and `--json` saves
that one. The case `tiny` is for trying things out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import child
from sft_inputs import CASES, Case, Inputs, make_inputs, packing_keys
from sft_table import Found, complaints, markdown, merge, replace_tables, show, summarize

WAYS = {"padded": {"fast_path": "off"}, "flat": {"fast_path": "require"}, "packed": {"fast_path": "require"}}
LEARNING_RATE = 1e-4


class Peer(NamedTuple):
    script: str
    padding_free: bool = False


PEERS = {
    "llamafactory": Peer("llamafactory_sft.py"),
    "trl": Peer("trl_sft.py"),
    "trl-padding-free": Peer("trl_sft.py", padding_free=True),
    "ms-swift": Peer("swift_sft.py"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default=",".join(list(CASES)[1:]), help=", ".join(CASES))
    parser.add_argument("--ways", default="padded,flat", help=", ".join(WAYS))
    parser.add_argument("--peer", action="append", default=[], type=_peer, metavar="NAME=PYTHON", help=", ".join(PEERS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--keep-activations", action="store_true", help="without gradient checkpointing")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path, nargs="+", metavar="FILE", help="write saved results as Markdown")
    parser.add_argument("--page", type=Path, metavar="FILE", help="with --table: put it between the marks of this page")
    parser.add_argument("--child", help=argparse.SUPPRESS)  # the process that is measured
    options = parser.parse_args()
    if options.child:
        _child(json.loads(options.child))
        return
    if options.table:
        found = merge([json.loads(file.read_text()) for file in options.table])
        tables = markdown(found)
        print(tables)
        if options.page:
            options.page.write_text(replace_tables(options.page.read_text(), tables))
    else:
        found = _measure_all(options)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit("\n".join(complaints(found)) or None)


def _peer(text: str) -> tuple[Peer, str, str]:
    name, _, python = text.partition("=")
    if name not in PEERS or not python:
        raise argparse.ArgumentTypeError(f"{text}: not NAME=PYTHON with a name of {', '.join(PEERS)}")
    return PEERS[name], name, python


def _measure_all(options: argparse.Namespace) -> Found:
    found: Found = {}
    for case in options.cases.split(","):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["TUNESMITH_DATA_CACHE"] = str(Path(folder) / "cache")
            run = Run(CASES[case], make_inputs(Path(folder), CASES[case], options.steps), Path(folder), options)
            commands = {way: run.ours(way) for way in options.ways.split(",")}
            commands |= {name: run.peer(peer, python) for peer, name, python in options.peer}
            runs = measure(commands, options.repeats)
            found[case] = summarize(runs, [sum(step) for step in run.inputs.lengths])
        show(case, found[case])
    return found


class Run(NamedTuple):
    """One case as command lines."""

    case: Case
    inputs: Inputs
    folder: Path
    options: argparse.Namespace

    def ours(self, way: str) -> list[str]:
        inputs, case = self.inputs, self.case
        keys = {
            "model_name_or_path": str(inputs.model),
            "finetuning_type": "lora" if case.lora else "full",
            "dataset": str(inputs.rows),
            "template": inputs.template,
            "cutoff_len": 1024,
            "disable_shuffling": True,
            "per_device_train_batch_size": case.batch,
            "max_steps": self.options.steps,
            "learning_rate": LEARNING_RATE,
            "lr_scheduler_type": "constant",
            "optim": "adamw_torch",
            "disable_gradient_checkpointing": self.options.keep_activations,
            "output_dir": str(self.folder / "out"),
            **({"adapter_name_or_path": str(inputs.adapter)} if inputs.adapter else {}),
            **({"bf16": True} if case.bf16 else {}),
            **WAYS[way],
        }
        if way == "packed":
            assert case.short, "only of short-rows is known that its packs hold the rows of a step"
            keys |= packing_keys(inputs.lengths[0])
        return child.command(__file__, {"keys": keys, "lengths": inputs.lengths})

    def peer(self, peer: Peer, python: str) -> list[str]:
        settings = {
            "model": str(self.inputs.model),
            "adapter": str(self.inputs.adapter) if self.inputs.adapter else None,
            "rows": str(self.inputs.tokens),
            "batch": self.case.batch,
            "steps": self.options.steps,
            "learning_rate": LEARNING_RATE,
            "bf16": self.case.bf16,
            "gradient_checkpointing": not self.options.keep_activations,
            "padding_free": peer.padding_free,
            "device": "cpu",
            "output_dir": str(self.folder / "peer"),
        }
        file = self.folder / f"{peer.script}-{peer.padding_free}.json"
        file.write_text(json.dumps(settings))
        return [python, str(Path(__file__).parent / "peers" / peer.script), str(file)]


def measure(commands: dict[str, list[str]], repeats: int) -> dict[str, list[dict[str, Any]]]:
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in commands}
    for _ in range(repeats):
        for way, command in commands.items():
            print(f"{way} ...", file=sys.stderr, flush=True)
            runs[way].append(_run(command))
    return runs


def _run(command: list[str]) -> dict[str, Any]:
    ours = command[0] == sys.executable
    environment = {key: value for key, value in os.environ.items() if ours or key != "PYTHONPATH"}
    cache = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(Path(os.environ["TUNESMITH_DATA_CACHE"]) / "peer")}
    done = subprocess.run(command, env={**environment, **cache}, capture_output=True, text=True, check=False)
    found: dict[str, Any] = child.last_line(done)
    return found


def _child(told: dict[str, Any]) -> None:
    """One run of ours, watched as a peer's script watches its own."""
    from peers.watch import Watch

    watch = Watch()
    child.train({"use_cpu": True, **told["keys"]}, watch)
    lines = (Path(told["keys"]["output_dir"]) / "trainer_log.jsonl").read_text().splitlines()
    tokens = [one["tokens"] for one in map(json.loads, lines) if "loss" in one]
    assert tokens == list(accumulate(sum(step) for step in told["lengths"])), "every step has its rows"
    watch.print_report()


if __name__ == "__main__":
    main()
