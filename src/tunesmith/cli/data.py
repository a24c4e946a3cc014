"""`tunesmith data preview` and `data check`: look at data. Both need at most the model's tokenizer, not its weights."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.app import WORDS, Verb, make_app
from tunesmith.cli.arguments import load
from tunesmith.cli.data_cache import app as cache
from tunesmith.cli.output import has_colour, print_json, write_page
from tunesmith.cli.preview import as_dict, print_rows, summary
from tunesmith.core import log
from tunesmith.core.errors import DataError, Problem, UsageError

if TYPE_CHECKING:
    from tunesmith.config import RunConfig
    from tunesmith.data.lint.run import Lint
    from tunesmith.data.preview import PreviewRow
    from tunesmith.render import Renderer

KEYS = "[CONFIG] [KEY=VALUE ...]"

PREVIEW_EPILOG = """\b
Examples:
  tunesmith data preview run.yaml
  tunesmith data preview run.yaml --rows 1 --start 41 --tokens
  tunesmith data preview run.yaml --rows 20 --html rows.html
  tunesmith data preview --model_name_or_path BASE --dataset rows.jsonl
"""
CHECK_EPILOG = """\b
Examples:
  tunesmith data check run.yaml
  tunesmith data check run.yaml --html report.html
  tunesmith data check run.yaml --strict --fail-on-leak
  tunesmith data check --dataset rows.jsonl
"""

app = make_app(help="Look at the data of a config, and check it.", subcommand_metavar="preview|check|cache ...")
app.add_typer(cache, name="cache")

Json = Annotated[bool, typer.Option("--json", help="For scripts.")]
Html = Annotated[str, typer.Option("--html", metavar="FILE", help="Write a page with the tokens of the rows.")]


@app.callback()
def _data() -> None:
    """Look at the data of a config, and check it."""


@app.command(cls=Verb, context_settings=WORDS, epilog=PREVIEW_EPILOG, options_metavar=KEYS)
def preview(
    context: typer.Context,
    rows: Annotated[int, typer.Option(metavar="N", min=1, help="How many rows.")] = 3,
    start: Annotated[int, typer.Option(metavar="I", min=0, help="The first row, counted from 0.")] = 0,
    tokens: Annotated[bool, typer.Option("--tokens", help="A line per token: id, weight, why not trained.")] = False,
    html: Html = "",
    as_json: Json = False,
) -> None:
    """Show rows as the model will see them, and which tokens it is trained to write."""
    config = load(context.args, "preview")
    log.setup()

    from tunesmith.data.preview import preview as find
    from tunesmith.train.counting import Counting

    renderer, tokenizer = _make_renderer(config)
    stage, asked = config.objective.stage, {"rows": rows, "start": start, "seed": _seed(config)}
    with Counting("reading", "rows") as count:
        found = find(config.data, renderer, tokenizer, stage=stage, notify=count, **asked)
    if start >= found.total:
        what = f"there is no row {start}: the data has {found.total:,} usable rows"
        raise UsageError(Problem("E-CLI-009", what, "--start", fix=f"--start 0 to {found.total - 1}"))
    template = None if stage == "pt" else renderer.name
    if html:
        from tunesmith.data.html.preview_page import preview_page
        from tunesmith.data.shown_media import thumbnails

        pictures = thumbnails(one for row in found.rows for one in row.media)
        write_page(html, preview_page(found, _title(config), summary(found, template), pictures))
    if as_json:
        print_json(as_dict(found, template))
        return
    if not html:
        print_rows(found.rows, in_colour=has_colour(sys.stdout), tokens=tokens)
        print()
    for line in summary(found, template):
        print("\n".join(wrap(line, 80, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)))


@app.command(cls=Verb, context_settings=WORDS, epilog=CHECK_EPILOG, options_metavar=KEYS)
def check(
    context: typer.Context,
    strict: Annotated[bool, typer.Option("--strict", help="End with 65 if there is an error or a warning.")] = False,
    fail_on_leak: Annotated[
        bool, typer.Option("--fail-on-leak", help="End with 65 if evaluation rows are trained on.")
    ] = False,
    html: Html = "",
    as_json: Json = False,
) -> None:
    """Check the data of a config before it is trained on.

    Ends with 65 if a run would stop because of its rows. Without a model the checks
    that need tokens are left out.
    """
    config = load(context.args, "inspect")
    log.setup()

    from tunesmith.data.lint.run import lint
    from tunesmith.media.limits import MediaLimits
    from tunesmith.train.counting import Counting

    renderer, tokenizer = _make_renderer(config) if config.model.model_name_or_path else (None, None)
    stage, limits = config.objective.stage, MediaLimits.of(config.media)
    with Counting("checking", "rows") as count:
        found = lint(config.data, stage=stage, seed=_seed(config), renderer=renderer, limits=limits, notify=count)
    if html:
        from tunesmith.data.html.check_page import check_page
        from tunesmith.data.shown_media import thumbnails

        strips = _strips(found, renderer, tokenizer, config.data.on_too_long) if renderer is not None else {}
        pictures = thumbnails(one for rows in strips.values() for row in rows for one in row.media)
        write_page(html, check_page(found.report, _title(config), strips, pictures))
    if as_json:
        print_json(found.report.to_dict())
    else:
        print("\n".join(found.report.lines()))
    if found.report.fails(strict=strict, on_leak=fail_on_leak):
        raise typer.Exit(DataError.exit_code)


def _make_renderer(config: RunConfig) -> tuple[Renderer, Any]:
    """(renderer, tokenizer) of the config's model."""
    from tunesmith.models.renderer import renderer_of
    from tunesmith.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(config.model)
    return renderer_of(config, tokenizer), tokenizer


def _strips(found: Lint, renderer: Renderer, tokenizer: Any, on_too_long: str) -> dict[int, list[PreviewRow]]:
    """The tokens of the rows that findings name."""
    from tunesmith.data.preview import decoder, preview_rows

    strips: dict[int, list[PreviewRow]] = {}
    examples, cutoff_len = list(found.examples.values()), found.report.cutoff_len
    for row in preview_rows(renderer, decoder(tokenizer), examples, cutoff_len, on_too_long):
        strips.setdefault(list(found.examples)[row.number], []).append(row)
    return strips


def _seed(config: RunConfig) -> int:
    return int(config.train.hf.get("seed", 42))


def _title(config: RunConfig) -> str:
    if config.source:
        return Path(config.source).name
    items = (*config.data.dataset, *config.data.eval_dataset)
    return ", ".join(item if isinstance(item, str) else str(item.get("name", item.get("path"))) for item in items)
