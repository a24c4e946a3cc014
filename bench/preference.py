"""How fast DPO with LoRA is, with what memory, against the plain way; and what it is worth to read a prompt once.

    python bench/preference.py [--cases small] [--ways shared,apart,plain] [--tiles 16,32,64,128] [--repeats 3]
                               [--steps 4] [--batch 2] [--json FILE]
    python bench/preference.py --cases half-prompt --ways shared,apart --steps 2
    python bench/preference.py --peer trl=PYTHON --peer llamafactory=PYTHON ...
    python bench/preference.py --table FILE

Each run is a process of its own, by turns, and starts from the same weights, adapter and pairs, in the same order.

shared  as Tunesmith trains: what both answers begin with is read once, log probabilities straight from hidden states
apart   the same, but `prefix_sharing: off`: each answer with its prompt, in flat batches
padded  `fast_path: off`
plain   transformers, PEFT and a loop (bench/peers/plain_dpo.py): padded rows, logits of all positions, twice
trl, llamafactory: DPO as these do it, in the environment of that interpreter (bench/peers/)
shared, N MB: chunks of the output layer's float32 logits take N MB at most (losses/linear_cross_entropy.py)

`small` has the first pairs of dpo_en_demo.json whose prompt leaves room for an answer in 512 tokens, cut there;
`half-prompt` pairs made of words, whose prompt is three quarters of each sequence. Models have the shape of Qwen2 and
random weights (bench/sft_inputs.py). A ratio is one of two runs of the same turn. Losses of all steps are compared:
where they differ by more than rounding, that is said and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import child
from sft_inputs import ASSETS, make_adapter, make_model

BETA, LEARNING_RATE = 0.1, 1e-4
WAYS: dict[str, dict[str, Any]] = {
    "shared": {"prefix_sharing": "auto", "fast_path": "require"},
    "apart": {"prefix_sharing": "off", "fast_path": "require"},
    "padded": {"fast_path": "off"},
}
PLAIN = "plain"
PEERS = {"trl": "trl_dpo.py", "llamafactory": "llamafactory_dpo.py"}
PROMPT = 1600  # characters, which leave room for an answer
WORDS = "time year people way day man thing woman life child world school state family student group country problem"


class Case(NamedTuple):
    """`shape`: one of sft_inputs.SHAPES. `answer`: words of an answer, of which the prompt has three times as many;
    None: the pairs of dpo_en_demo.json."""

    shape: str
    answer: int | None = None
    cutoff: int = 512
    bf16: bool = False


CASES = {
    "tiny": Case("tiny"),
    "small": Case("small"),
    "small-prompt": Case("small", 125, 1024),
    "half-prompt": Case("half", 125, 1024),
    "half-prompt-bf16": Case("half", 125, 1024, bf16=True),
}
Runs = dict[str, list[dict[str, Any]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default="small", help=", ".join(CASES))
    parser.add_argument("--ways", default="shared,apart,plain", help=", ".join([*WAYS, PLAIN]))
    parser.add_argument("--tiles", default="", help="MB, separated by commas: `shared` once more with each")
    parser.add_argument("--peer", action="append", default=[], type=_peer, metavar="NAME=PYTHON", help=", ".join(PEERS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--keep-activations", action="store_true", help="without gradient checkpointing")
    parser.add_argument("--json", type=Path, help="where runs are saved; those that are there stay")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write saved runs as Markdown")
    parser.add_argument("--child", help=argparse.SUPPRESS)  # the process that is measured
    options = parser.parse_args()
    if options.child:
        _child(json.loads(options.child))
        return
    found: dict[str, Runs] = {}
    if (saved := options.table or options.json) is not None and saved.exists():
        found = json.loads(saved.read_text())
    for case in [] if options.table else options.cases.split(","):
        name = f"{case}, activations kept" if options.keep_activations else case
        for _ in _measure(case, options, found.setdefault(name, {})):
            if options.json:
                options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(markdown(found))
    sys.exit("\n".join(complaints(found)) or None)


def _measure(name: str, options: argparse.Namespace, runs: Runs) -> Iterator[None]:
    """Adds to `runs`, and comes back after each of them."""
    case = CASES[name]
    with tempfile.TemporaryDirectory() as told:
        folder = Path(told)
        os.environ["TUNESMITH_DATA_CACHE"] = str(folder / "cache")
        model = make_model(folder, case.shape)
        adapter = make_adapter(model)
        rows = folder / "pairs.json"
        rows.write_text(json.dumps(_pairs(case, options.batch * options.steps)))
        keys = {
            "stage": "dpo",
            "finetuning_type": "lora",
            "model_name_or_path": str(model),
            "adapter_name_or_path": str(adapter),
            "dataset": str(rows),
            "template": "qwen",
            "cutoff_len": case.cutoff,
            "disable_shuffling": True,
            "per_device_train_batch_size": options.batch,
            "max_steps": options.steps,
            "learning_rate": LEARNING_RATE,
            "lr_scheduler_type": "constant",
            "optim": "adamw_torch",
            "pref_beta": BETA,
            "bf16": case.bf16,
            "disable_gradient_checkpointing": options.keep_activations,
            "output_dir": str(folder / "out"),
        }
        commands = {
            way: child.command(__file__, {"keys": {**keys, **WAYS[way]}})
            for way in options.ways.split(",")
            if way != PLAIN
        }
        for size in filter(None, options.tiles.split(",")):
            told_child = {"keys": {**keys, **WAYS["shared"]}, "tile": int(size) << 20}
            commands[f"shared, {size} MB"] = child.command(__file__, told_child)
        others = [(PLAIN, sys.executable, "plain_dpo.py")] if PLAIN in options.ways.split(",") else []
        others += [(name, python, PEERS[name]) for name, python in options.peer]
        settings = _settings(folder, keys, options, case) if others else ""
        scripts = Path(__file__).parent / "peers"
        commands |= {name: [python, str(scripts / script), settings] for name, python, script in others}
        for _ in range(options.repeats):
            for way, command in commands.items():
                print(f"{name}, {way} ...", file=sys.stderr, flush=True)
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                runs.setdefault(way, []).append(child.last_line(done))
                yield


def _pairs(case: Case, count: int) -> list[dict[str, Any]]:
    if case.answer is None:
        rows = json.loads((ASSETS / "data" / "preference" / "dpo_en_demo.json").read_text())
        return [row for row in rows if sum(len(one["value"]) for one in row["conversations"]) < PROMPT][:count]
    drawn = random.Random(0)

    def say(words: int) -> str:
        return " ".join(drawn.choices(WORDS.split(), k=words))

    return [
        {
            "conversations": [{"from": "human", "value": say(3 * case.answer)}],
            "chosen": {"from": "gpt", "value": say(case.answer)},
            "rejected": {"from": "gpt", "value": say(case.answer)},
        }
        for _ in range(count)
    ]


def _peer(text: str) -> tuple[str, str]:
    name, _, python = text.partition("=")
    if name not in PEERS or not python:
        raise argparse.ArgumentTypeError(f"NAME=PYTHON with a name of {', '.join(PEERS)}")
    return name, python


def _settings(folder: Path, keys: dict[str, Any], options: argparse.Namespace, case: Case) -> str:
    """The file that those who are not Tunesmith read what to do from."""
    tokens = folder / "tokens.jsonl"
    tokens.write_text("".join(json.dumps(one) + "\n" for one in _encoded(keys)))
    settings = {
        "model": keys["model_name_or_path"],
        "adapter": keys["adapter_name_or_path"],
        "rows": str(tokens),
        "batch": options.batch,
        "steps": options.steps,
        "learning_rate": LEARNING_RATE,
        "beta": BETA,
        "bf16": case.bf16,
        "gradient_checkpointing": not options.keep_activations,
        "output_dir": str(folder / "peer"),
    }
    file = folder / "settings.json"
    file.write_text(json.dumps(settings))
    return str(file)


def _encoded(keys: dict[str, Any]) -> list[dict[str, Any]]:
    """`input_ids` and `labels` of both answers of each pair, as a run of ours has them."""
    from tunesmith.config import load_config
    from tunesmith.data import build_datasets
    from tunesmith.models.tokenizer import load_tokenizer
    from tunesmith.render import make_renderer

    config = load_config(keys, {}, verb="train")
    renderer = make_renderer(config.template, load_tokenizer(config.model))
    found = build_datasets(config.data, renderer, stage="dpo", seed=1).train
    assert found is not None, "there are rows"
    pairs = []
    for pair in (found[number] for number in range(len(found))):
        ids, trained, first = pair["input_ids"].tolist(), pair["trained"].tolist(), int(pair["lengths"][0])
        labels = [one if yes else -100 for one, yes in zip(ids, trained, strict=True)]
        parts = {"chosen": slice(first), "rejected": slice(first, None)}
        pairs.append({name: {"input_ids": ids[at], "labels": labels[at]} for name, at in parts.items()})
    return pairs


def _child(told: dict[str, Any]) -> None:
    from peers.watch import Watch

    from tunesmith.losses import linear_cross_entropy

    if "tile" in told:
        linear_cross_entropy.CHUNK_BYTES["cpu"] = told["tile"]
    watch = Watch()
    child.train({"use_cpu": True, **told["keys"]}, watch)
    watch.print_report()


def ratios(mine: list[dict[str, Any]], other: list[dict[str, Any]], figure: str) -> list[float]:
    """`mine` / `other`, turn by turn."""
    pairs = zip(mine, other, strict=False)
    return [_figure(one, figure) / _figure(two, figure) for one, two in pairs]


def _figure(run: dict[str, Any], name: str) -> float:
    return float(statistics.median(run["seconds"]) if name == "seconds" else run[name])


def markdown(found: dict[str, Runs]) -> str:
    tables = []
    for case, runs in found.items():
        base = PLAIN if PLAIN in runs else "apart"
        counts = sorted({len(every) for every in runs.values()})
        many = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
        lines = [
            f"| {case}, {many} turns | seconds a step | MB grown | steps against {base} | MB against {base} |",
            "|---|---|---|---|---|",
        ]
        for way, every in runs.items():
            cells = [_range([_figure(run, "seconds") for run in every], ".2f")]
            cells.append(_range([run["growth"] for run in every], ",.0f"))
            if way == base or base not in runs:
                cells += ["1.00x", "1.00x"]
            else:
                cells.append(_range(ratios(runs[base], every, "seconds"), ".2f", "x"))
                cells.append(_range(ratios(every, runs[base], "growth"), ".2f", "x"))
            lines.append(f"| {way} | " + " | ".join(cells) + " |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def _range(values: list[float], how: str, unit: str = "") -> str:
    return f"{statistics.median(values):{how}}{unit} ({min(values):{how}}-{max(values):{how}})"


def complaints(found: dict[str, Runs]) -> list[str]:
    """What is not the same in all runs of a case: losses and norms by more than rounding, what is trained and kept."""
    told = []
    for case, runs in found.items():
        rounding = 5e-3 if "bf16" in case else 1e-4
        first = next(iter(runs.values()))[0]
        for way, every in runs.items():
            for run in every:
                for figure in ("losses", "norms"):
                    apart = [abs(one - two) / abs(two) for one, two in zip(run[figure], first[figure], strict=True)]
                    if max(apart) > rounding * (1 if figure == "losses" else 10):
                        told.append(f"{case}: {figure} of {way} are off by {max(apart):.1e}")
                told += [
                    f"{case}: {figure} of {way}: {run[figure]}, not {first[figure]}"
                    for figure in ("trained_parameters", "checkpointing", "threads")
                    if run[figure] != first[figure]
                ]
    return list(dict.fromkeys(told))


if __name__ == "__main__":
    main()
