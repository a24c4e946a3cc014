"""`tunesmith config show|check|schema`: what a config means, whether it is right, and which keys there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from tunesmith.cli.app import WORDS, Verb, make_app
from tunesmith.cli.arguments import load
from tunesmith.cli.output import print_json

KEYS = "[CONFIG] [KEY=VALUE ...]"

app = make_app(
    help="Show what a config means, check it, or list every key.", subcommand_metavar="show|check|schema ..."
)

Json = Annotated[bool, typer.Option("--json", help="For scripts.")]


@app.command(cls=Verb, context_settings=WORDS, options_metavar=KEYS)
def show(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Also the keys that have their default.")] = False,
    as_json: Json = False,
) -> None:
    """Print the config as it will be used.

    File and overrides together, secrets hidden.
    """
    from tunesmith.config import dump_yaml

    config = load(context.args, "show")
    if as_json:
        print_json(config.to_flat(everything, secrets="redact"))
    else:
        print(dump_yaml(config, everything, secrets="redact"), end="")


@app.command(cls=Verb, context_settings=WORDS, options_metavar=KEYS)
def check(context: typer.Context, as_json: Json = False) -> None:
    """Check a config without loading anything.

    Prints "ok" and warnings, or all errors at once. What the config is for (train, chat or export) is told by its keys.
    """
    if as_json:
        _check_json(context.args)
    else:
        check_and_report(context.args)


@app.command(cls=Verb)
def schema() -> None:
    """Print the JSON Schema of all keys."""
    from tunesmith.config.schema import json_schema

    print_json(json_schema())


def check_and_report(words: Sequence[str]) -> None:
    """Load a config and say that it is right. Raises ConfigError with all that is wrong."""
    config = load(words, "check")
    place = config.source or "these keys"
    print(f"ok: {place} ({len(config.user_keys)} keys, for {config.verb})")


def _check_json(words: Sequence[str]) -> None:
    """{"ok", "verb", "warnings", "problems"} on standard output; the exit code is the same as without --json."""
    from dataclasses import asdict

    from tunesmith.core.errors import TunesmithError

    try:
        config = load(words, "check", show_warnings=False)
    except TunesmithError as error:
        problems = [asdict(problem) for problem in error.problems]
        print_json({"ok": False, "verb": None, "warnings": [], "problems": problems})
        raise typer.Exit(error.exit_code) from error
    print_json({"ok": True, "verb": config.verb, "warnings": list(config.warnings), "problems": []})
