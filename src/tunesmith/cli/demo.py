"""`tunesmith demo`: a small chat model answers three questions, is fine-tuned, and answers them again."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import textwrap
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.app import Verb, make_app
from tunesmith.core.errors import OutputError, Problem

if TYPE_CHECKING:
    from tunesmith.config import RunConfig
    from tunesmith.train.callbacks.plot import Curves
    from tunesmith.train.results import Result

SUMMARY = "demo.json"
# Greedy and short: the same answers every time, and a small model that rambles is cut off.
SAMPLING: dict[str, Any] = {"do_sample": False, "max_new_tokens": 48}
WIDTH = 80

app = make_app(no_args_is_help=False)


@app.command(cls=Verb)
def demo(
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where the adapter is saved.")] = Path("tunesmith-demo"),
) -> None:
    """Teach a small chat model its new name and a town it has never heard of.

    Fetches SmolLM2-135M-Instruct (once), fine-tunes it with LoRA in a few minutes on a CPU, and shows the same
    questions answered before and after.
    """
    _refuse_foreign(output)

    from tunesmith.core import log
    from tunesmith.models.demo import demo_model
    from tunesmith.train.callbacks.plot import read_curves
    from tunesmith.train.run import train

    log.setup()
    catalog = Path(str(files("tunesmith").joinpath("catalog", "demo")))
    questions = json.loads((catalog / "questions.json").read_text(encoding="utf-8"))

    _say("1/4  the model")
    model = demo_model(_tell)
    _tell(str(model))
    _say("2/4  three questions to the model as it is")
    before = _ask(questions, model)
    _say("3/4  training")
    config = _config(catalog, model, output)
    result = train(config)
    _say("4/4  the same questions to the trained model")
    after = _ask(questions, model, output)

    curves = read_curves(output / "trainer_log.jsonl")
    summary = summarise(questions, before, after, curves, result, model)
    (output / SUMMARY).write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _print_answers(summary["questions"])
    for line in summary_lines(summary):
        print(line)


def summarise(
    questions: Sequence[dict[str, Any]],
    before: Sequence[str],
    after: Sequence[str],
    curves: Curves,
    result: Result,
    model: Path,
) -> dict[str, Any]:
    """Everything the demo shows, as plain types: what it prints and what demo.json holds."""
    (held_out,) = curves.held_out.values()
    return {
        "model": str(model),
        "output": str(result.output_dir),
        "questions": [
            {
                "ask": question["ask"],
                "words": question["words"],
                "before": first,
                "after": second,
                "knew_before": knows(first, question["words"]),
                "knows_after": knows(second, question["words"]),
            }
            for question, first, second in zip(questions, before, after, strict=True)
        ],
        "loss": {"first": curves.train[0][1], "last": curves.train[-1][1]},
        "held_out_loss": {"before": held_out[0][1], "after": held_out[-1][1]},
        "tokens_per_second": result.metrics["train_tokens_per_second"],
        "seconds": result.metrics["train_runtime"],
        "peak_memory_gib": result.metrics["peak_memory_gib"],
        "saved": sorted(str(path) for path in result.output_dir.iterdir() if path.is_file() and path.name[0] != "."),
        "next": next_commands(result.output_dir),
    }


def knows(answer: str, words: Sequence[str]) -> bool:
    """Whether all the words that a right answer holds are in it."""
    return all(word.lower() in answer.lower() for word in words)


def next_commands(output: Path) -> list[str]:
    """The saved config stands for what its training saved."""
    program, config = shlex.quote(_program()), shlex.quote(str(output / "run.yaml"))
    merged = shlex.quote(str(output / "merged"))
    return [f"{program} chat {config}", f"{program} export {config} --export_dir {merged}"]


def _program() -> str:
    """What to type to start this very program: its name if the shell finds it there, else its path."""
    own = Path(sys.executable).with_name("tunesmith")
    found = shutil.which("tunesmith")
    if not own.exists() or (found and Path(found).resolve() == own.resolve()):
        return "tunesmith"
    return str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own)


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """The numbers and paths at the end of the demo."""
    held_out, loss = summary["held_out_loss"], summary["loss"]
    change = (held_out["after"] / held_out["before"] - 1) * 100
    return [
        f"training loss   {loss['first']:.3f} -> {loss['last']:.3f}",
        f"held-out loss   {held_out['before']:.3f} -> {held_out['after']:.3f}  ({change:+.0f} %)",
        f"speed           {summary['tokens_per_second']:,.0f} tokens/s, {summary['seconds']:.0f} s of training",
        f"peak memory     {summary['peak_memory_gib']:.2f} GiB",
        "",
        f"saved in {summary['output']}:",
        *(f"  {Path(path).name}" for path in summary["saved"]),
        "",
        "go on with:",
        *(f"  {command}" for command in summary["next"]),
    ]


def _refuse_foreign(output: Path) -> None:
    """Only a folder of an earlier demo is replaced."""
    if output.exists() and not (output / SUMMARY).is_file() and not (output.is_dir() and not any(output.iterdir())):
        fix = "name another folder with --output"
        raise OutputError(Problem("E-CLI-010", "the folder holds something else", str(output), fix=fix))


def _config(catalog: Path, model: Path, output: Path) -> RunConfig:
    """The demo's own run.yaml, with the paths of this machine and the fastest precision that it has."""
    from tunesmith.config import load_config
    from tunesmith.models.machine import has_bf16

    here = {
        "model_name_or_path": str(model),
        "dataset": str(catalog / "train.jsonl"),
        "eval_dataset": str(catalog / "heldout.jsonl"),
        "output_dir": str(output),
        "overwrite_output_dir": True,
        "bf16": has_bf16(),
    }
    return load_config(catalog / "run.yaml", here)


def _ask(questions: Sequence[dict[str, Any]], model: Path, adapter: Path | None = None) -> list[str]:
    """Answers to the questions, each in a conversation of its own."""
    from tunesmith.api import chat

    keys = {"model_name_or_path": str(model), **({"adapter_name_or_path": str(adapter)} if adapter else {})}
    answers = []
    with chat(keys) as conversation:
        for question in questions:
            answers.append(conversation.ask(question["ask"], **SAMPLING).strip())
            conversation.clear()
            _tell(question["ask"])
            _tell(answers[-1], indent=" " * 6)
    return answers


def _print_answers(questions: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    table = Table(title="Before and after", show_lines=True, expand=True)
    for name, ratio in {"question": 2, "before": 3, "after": 3}.items():
        table.add_column(name, ratio=ratio)
    for item in questions:
        cells = [
            Text(item["before"], style="green" if item["knew_before"] else ""),
            Text(item["after"], style="bold green" if item["knows_after"] else ""),
        ]
        table.add_row(Text(item["ask"]), *cells)
    console.print(table)


def _say(heading: str) -> None:
    print(f"\n== {heading}", file=sys.stderr)


def _tell(line: str, indent: str = " " * 3) -> None:
    print(textwrap.fill(line, WIDTH, initial_indent=indent, subsequent_indent=indent), file=sys.stderr)
