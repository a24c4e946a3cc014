"""`tunesmith data preview`: rows as the model will see them. Needs the model's tokenizer, not its weights."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from tunesmith.cli.app import WORDS, Verb, make_app
from tunesmith.cli.arguments import load
from tunesmith.cli.output import has_colour, print_json
from tunesmith.cli.preview import MARKS, OTHER_STYLE, TRAINED_STYLE, Row, coloured, marked, rows_of
from tunesmith.core.errors import Problem, UsageError

EPILOG = """\b
Examples:
  tunesmith data preview run.yaml
  tunesmith data preview run.yaml --rows 1 --start 41
  tunesmith data preview --model_name_or_path BASE --dataset rows.jsonl
"""

app = make_app(help="Look at the data of a config.", subcommand_metavar="preview ...")


@app.callback()
def _data() -> None:
    """Look at the data of a config."""


@app.command(cls=Verb, context_settings=WORDS, epilog=EPILOG, options_metavar="[CONFIG] [KEY=VALUE ...]")
def preview(
    context: typer.Context,
    rows: Annotated[int, typer.Option(metavar="N", min=1, help="How many rows.")] = 3,
    start: Annotated[int, typer.Option(metavar="I", min=0, help="The first row, counted from 0.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Show rows as the model will see them, and which tokens it is trained to write."""
    config = load(context.args, "preview")

    from tunesmith.data import build_datasets
    from tunesmith.models.tokenizer import load_tokenizer
    from tunesmith.render import make_renderer

    tokenizer = load_tokenizer(config.model)
    renderer = make_renderer(config.template, tokenizer)
    seed = int(config.train.hf.get("seed", 42))
    datasets = build_datasets(config.data, renderer, stage=config.objective.stage, seed=seed)
    dataset = datasets.train if datasets.train is not None else next(iter(datasets.eval.values()))
    if start >= len(dataset):
        what = f"there is no row {start}: the data gives {len(dataset):,} rows"
        raise UsageError(Problem("E-CLI-009", what, "--start", fix=f"--start 0 to {len(dataset) - 1}"))

    def decode(ids: Sequence[int]) -> str:
        text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    found = list(rows_of(dataset, decode, start, rows))
    if as_json:
        print_json(
            {"template": renderer.name, "rows": [r.to_dict() for r in found], "report": datasets.report.to_dict()}
        )
        return
    _print_rows(found)
    print(f"\ntemplate: {renderer.name}")
    for line in [*renderer.notices, *renderer.statistics.lines(), *datasets.report.lines()]:
        print(line)


def _print_rows(rows: Sequence[Row]) -> None:
    if has_colour(sys.stdout):
        from rich.console import Console

        console = Console(highlight=False, markup=False, emoji=False)
        console.print("trained", style=TRAINED_STYLE, end=" ")
        console.print("not trained", style=OTHER_STYLE)
        for row in rows:
            console.print(f"\n{row.head}", style="bold")
            console.print(coloured(row))
    else:
        print(f"trained parts are between {MARKS[0]} and {MARKS[1]}")
        for row in rows:
            print(f"\n{row.head}\n{marked(row)}")
