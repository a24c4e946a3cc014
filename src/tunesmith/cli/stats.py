"""`tunesmith stats ppl|lr|flops|mfu|lengths`: figures of a config or a run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.app import WORDS, Verb, make_app
from tunesmith.cli.arguments import load, take
from tunesmith.cli.output import print_json, table_lines
from tunesmith.core import log
from tunesmith.core.errors import Problem, UsageError
from tunesmith.core.signals import StopSignals

if TYPE_CHECKING:
    from tunesmith.stats.lengths import Lengths

KEYS = "[CONFIG] [KEY=VALUE ...]"
_BAR = 30

EPILOG = """\b
Examples:
  tunesmith stats lengths run.yaml --plot lengths.png
  tunesmith stats ppl run.yaml eval_dataset=test.jsonl --save rows.jsonl
  tunesmith stats lr run.yaml
  tunesmith stats flops run.yaml --json
  tunesmith stats mfu saves/first --device "H100 SXM"

\b
CONFIG and KEY=VALUE are those of `tunesmith train`.
docs/stats.md tells what the figures mean.
"""

app = make_app(help="Figures of a config or a run.", subcommand_metavar="ppl|lr|flops|mfu|lengths ...", epilog=EPILOG)

AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]


@app.callback()
def _stats() -> None:
    """Figures of a config or a run."""


PPL_EPILOG = """\b
Options with a value:
  --save FILE  a line of JSON for each row
\b
Rows are those of eval_dataset, or of dataset. A training config stands for
what its training saved. per_device_eval_batch_size rows are scored at once.
"""


@app.command(cls=Verb, context_settings=WORDS, epilog=PPL_EPILOG, options_metavar=KEYS)
def ppl(context: typer.Context, as_json: AsJson = False) -> None:
    """Perplexity of the trained tokens of a dataset, under a model."""
    words, given = take(context.args, ("save",))
    with StopSignals():
        config = load(words, "stats")
        log.setup()
        from tunesmith.api import with_result
        from tunesmith.models.quiet import quiet_libraries
        from tunesmith.stats.perplexity import perplexity

        quiet_libraries()
        found = perplexity(with_result(config), Path(given["save"]).expanduser() if "save" in given else None)
    if as_json:
        print_json(found.to_dict())
        return
    interval = "" if found.low is None else f"  (95 % interval {found.low:,.4g} to {found.high:,.4g})"
    _print(
        {
            "perplexity": f"{found.perplexity:,.4g}{interval}",
            "loss": f"{found.loss:.4f} nats a token",
            "rows": f"{found.rows:,}",
            "tokens": f"{found.tokens:,}",
            **({"written": given["save"]} if "save" in given else {}),
        }
    )


@app.command(cls=Verb, context_settings=WORDS, options_metavar=KEYS)
def lr(context: typer.Context, as_json: AsJson = False) -> None:
    """A learning rate to start from, by the tokens that a step learns from."""
    config = load(context.args, "stats")
    log.setup()
    from tunesmith.stats.learning_rate import suggest

    found = suggest(config)
    if as_json:
        print_json(found.to_dict())
        return
    _print(
        {
            "learning_rate": f"{found.learning_rate:.3g}  (the config says {found.given:.3g})",
            "a step": f"{found.rows:,} rows, {found.tokens:,.0f} tokens, {found.trained:,.0f} trained",
            "steps": f"{found.steps:,}",
        }
    )
    if found.finetuning_type != "full":
        print(f"the rule is of full weights; {found.finetuning_type} has a rate of its own (docs/stats.md)")


@app.command(cls=Verb, context_settings=WORDS, options_metavar=KEYS)
def flops(context: typer.Context, as_json: AsJson = False) -> None:
    """FLOPs that training takes: a token, a step, the run. Reads no weights."""
    config = load(context.args, "stats")
    log.setup()
    from tunesmith.models.quiet import quiet_libraries
    from tunesmith.stats.flops import count_flops

    quiet_libraries()
    found = count_flops(config)
    if as_json:
        print_json(found.to_dict())
        return
    parts = ("layers", "attention", "head")
    shares = ", ".join(f"{name} {getattr(found, name) / found.per_token:.1%}" for name in parts)
    experts = found.experts
    _print(
        {
            "a token": f"{_flops(found.per_token)}  ({shares})",
            "a step": f"{_flops(found.per_step)}  ({found.tokens_per_step:,.0f} tokens)",
            "the run": f"{_flops(found.total)}  ({found.steps:,} steps)",
            "parameters": f"{found.parameters:,}, of which {found.trained_parameters:,} train",
            **({} if experts is None else {"experts": _experts(experts, found.active_parameters)}),
        }
    )


def _experts(told: dict[str, Any], active: int) -> str:
    dense, layers = told["dense_layers"], told["layers"]
    where = f"{layers - len(dense)} of {layers} layers (dense: {_ranges(dense)})" if dense else f"all {layers} layers"
    each = f"{told['experts']}, of which a token meets {told['experts_per_token']:.4g}"
    return f"{each}, in {where}; {active:,} parameters a token"


def _ranges(numbers: list[int]) -> str:
    """0-2, 5 for 0, 1, 2, 5."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


MFU_EPILOG = """\b
Options with a value:
  --device NAME   a GPU of the table, such as "H100 SXM" or "A100"
  --peak TFLOPS   of a device, instead of the table's
  --step-seconds S, --devices N
                  how long a step of CONFIG takes on so many devices
\b
A folder of a run needs neither: it measured itself, and run.json has its GPU.
"""


@app.command(cls=Verb, context_settings=WORDS, epilog=MFU_EPILOG, options_metavar="RUN | CONFIG [KEY=VALUE ...]")
def mfu(context: typer.Context, as_json: AsJson = False) -> None:
    """The share of a device's peak that the mathematics of training used."""
    words, given = take(context.args, ("device", "peak", "step-seconds", "devices"))
    log.setup()
    from tunesmith.stats.mfu import mfu_of_run, mfu_of_step

    peak = _number(given, "peak") if "peak" in given else None
    options: dict[str, Any] = {"peak": peak, "device": given.get("device")}
    if "step-seconds" in given:
        devices = int(_number(given, "devices")) if "devices" in given else 1
        found = mfu_of_step(load(words, "stats"), _number(given, "step-seconds"), devices=devices, **options)
    elif len(words) == 1 and Path(words[0]).expanduser().is_dir():
        found = mfu_of_run(Path(words[0]).expanduser(), **options)
    else:
        fix = "name the folder of a run, or a config with --step-seconds"
        raise UsageError(Problem("E-STATS-009", "how fast training is, is not known", fix=fix))
    if as_json:
        print_json(found.to_dict())
        return
    _print(
        {
            "mfu": f"{found.mfu:.2%}",
            "a device": f"{found.tflops:,.4g} TFLOP/s of {found.peak_tflops:,.4g} ({found.device}, {found.arithmetic})",
            "from": found.source,
        }
    )


LENGTHS_EPILOG = """\b
Options with a value:
  --plot FILE   a picture: histogram and cumulative share
  --interval N  tokens between two lines of the table
"""


@app.command(cls=Verb, context_settings=WORDS, epilog=LENGTHS_EPILOG, options_metavar=KEYS)
def lengths(context: typer.Context, as_json: AsJson = False) -> None:
    """How long samples are, what cutoff_len cuts, and what packing saves."""
    words, given = take(context.args, ("plot", "interval"))
    config = load(words, "stats")
    log.setup()
    from tunesmith.stats.lengths import lengths as measure
    from tunesmith.stats.lengths import plot_lengths

    interval = int(_number(given, "interval")) if "interval" in given else None
    found = measure(config, interval)
    if "plot" in given:
        plot_lengths(found, Path(given["plot"]).expanduser())
        print(f"written: {given['plot']}", file=sys.stderr)
    if as_json:
        print_json(found.to_dict())
    else:
        print("\n".join(_length_lines(found)))


def _length_lines(found: Lengths) -> list[str]:
    percentiles = "  ".join(f"{name} %: {value:,}" for name, value in found.percentiles.items())
    lost = "" if found.cut_tokens is None else f", {found.cut_tokens:.2%} of the tokens"
    facts = {
        "samples": f"{found.samples:,}, {found.tokens:,} tokens, {found.trained:,} trained",
        "length": f"{found.shortest:,} to {found.longest:,}, on average {found.mean:,.1f}",
        "percentiles": percentiles,
        "cutoff_len": f"{found.cutoff_len:,} cuts {found.too_long:,} samples ({found.cut_samples:.2%}){lost}",
        "padding": f"{found.padding:.1%} of padded batches of {found.batch} (flat batches have none)",
    }
    if found.packs is not None:
        facts["packing"] = f"{found.packs:,} rows instead of {found.samples:,}, {found.filled:.1%} filled"
    width = len(f"{found.up_to[-1][0]:,}")
    table = [
        f"  {length:>{width},}  {count:>9,}  {share:7.2%}  {'#' * round(share * _BAR)}".rstrip()
        for length, count, share in found.up_to
    ]
    return [*table_lines(facts), "samples with at most so many tokens:", *table]


def _number(given: Mapping[str, str], name: str) -> float:
    """A positive number. Raises UsageError for what is none."""
    try:
        found = float(given[name])
    except ValueError:
        found = 0.0
    whole = name in ("interval", "devices")
    if not 0 < found < float("inf") or (whole and found != int(found)):
        what = f"--{name} takes a {'whole ' if whole else ''}number above 0"
        raise UsageError(Problem("E-STATS-009", what, f"--{name}", given[name], f"--{name} {2 if whole else 1.5}"))
    return found


def _flops(number: float) -> str:
    """`1.23 TFLOPs`"""
    for unit in ("", "k", "M", "G", "T", "P"):
        if number < 1000:
            return f"{number:.3g} {unit}FLOPs"
        number /= 1000
    return f"{number:,.3g} EFLOPs"


def _print(facts: Mapping[str, str]) -> None:
    print("\n".join(table_lines(facts)))
