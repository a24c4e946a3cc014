"""`tunesmith data preview`: rows as the model will see them. Needs the model's tokenizer, not its weights."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli.app import WORDS, Verb, make_app
from tunesmith.cli.arguments import load
from tunesmith.cli.output import has_colour, print_json
from tunesmith.cli.preview import MARKS, as_dict, coloured, head, legend, marked, summary
from tunesmith.core import log
from tunesmith.core.errors import Problem, UsageError

if TYPE_CHECKING:
    from tunesmith.data.preview import PreviewRow

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
    log.setup()

    from tunesmith.data.preview import preview as find
    from tunesmith.models.catalog import fallback_template
    from tunesmith.models.tokenizer import load_tokenizer
    from tunesmith.render import make_renderer

    stage, seed = config.objective.stage, int(config.train.hf.get("seed", 42))
    tokenizer = load_tokenizer(config.model)
    renderer = make_renderer(config.template, tokenizer, fallback=fallback_template(config.model.model_name_or_path))
    found = find(config.data, renderer, tokenizer, stage=stage, rows=rows, start=start, seed=seed)
    if start >= found.total:
        what = f"there is no row {start}: the data has {found.total:,} usable rows"
        raise UsageError(Problem("E-CLI-009", what, "--start", fix=f"--start 0 to {found.total - 1}"))
    template = None if stage == "pt" else renderer.name
    if as_json:
        print_json(as_dict(found, template))
        return
    _print_rows(found.rows)
    print()
    for line in summary(found, template):
        print("\n".join(wrap(line, 80, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)))


def _print_rows(rows: Sequence[PreviewRow]) -> None:
    if not has_colour(sys.stdout):
        print(f"trained parts are between {MARKS[0]} and {MARKS[1]}")
        for row in rows:
            print(f"\n{head(row)}\n{marked(row)}")
        return
    from rich.console import Console

    # Soft wrap: the terminal breaks long lines where it must, and every blank stays what it is.
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    console.print(legend())
    for row in rows:
        console.print(f"\n{head(row)}", style="bold")
        console.print(coloured(row))
