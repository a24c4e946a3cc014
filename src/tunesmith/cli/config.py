"""`tunesmith config show|check|schema`: what a config means, whether it is right, and which keys there are."""

from __future__ import annotations

import glob
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli.app import WORDS, Verb, make_app
from tunesmith.cli.arguments import load
from tunesmith.cli.output import print_json
from tunesmith.core.errors import Problem, TunesmithError

if TYPE_CHECKING:
    from tunesmith.config import RunConfig
    from tunesmith.config.data import DataConfig

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
    check_template(config)
    for line in missing_inputs(config):
        print(f"warning: {line}", file=sys.stderr)
    place = config.source or "these keys"
    print(f"ok: {place} ({len(config.user_keys)} keys, for {config.verb})")


def check_template(config: RunConfig) -> None:
    """Raises UsageError if `template` or `tool_format` names none: the config itself does not know the catalog."""
    if config.template.template not in (None, "auto"):
        from tunesmith.render.slot_files import raw_template

        raw_template(str(config.template.template))
    if config.template.tool_format:
        from tunesmith.render.tools import get_dialect

        get_dialect(config.template.tool_format)


def missing_inputs(config: RunConfig) -> list[str]:
    """Model and datasets that are not there. Warnings only: they may be fetched or made before the run.

    `tunesmith.data` would tell the same with a suggestion, but importing it takes as long as all of the check.
    """
    from tunesmith.models.locate import check_folder

    found = []
    try:
        check_folder(str(config.model.model_name_or_path), "model_name_or_path", must_hold="config.json")
    except TunesmithError as error:
        found += [_in_one_line(problem) for problem in error.problems]
    if config.verb in ("train", "preview"):
        found += _missing_datasets(config.data)
    return found


def _missing_datasets(data: DataConfig) -> list[str]:
    """Names that are no entry and no path. Those of remote places are not looked for, and mappings name themselves."""
    table = data.dataset_dir
    if not isinstance(table, str) or table == "ONLINE" or table.startswith("REMOTE:"):
        return []
    folder = Path(table).expanduser()
    names = _table_of_datasets(folder / "dataset_info.json")
    found = []
    for name in (*data.dataset, *data.eval_dataset):
        if not isinstance(name, str) or _ADDRESS.match(name):
            continue
        if _REPOSITORY.fullmatch(name) and not Path(name).parent.is_dir():
            continue
        forms = {name, _ROWS.sub("", name), _SUBSET.sub("", _ROWS.sub("", name))}
        there = (Path(form).expanduser().exists() or (folder / form).exists() for form in forms)
        if not (forms & names or any(there) or glob.has_magic(name)):
            found.append(f'no dataset "{name}": neither a path nor an entry of {folder / "dataset_info.json"}')
    return found


# Forms of names, as `tunesmith.data.dataset_info` knows them: addresses and repositories; what may stand behind a name.
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w-]+(:[\w.+-]+)?(#\d+)?")
_ROWS = re.compile(r"#\d+$")
_SUBSET = re.compile(r":[\w.+-]+$")


def _table_of_datasets(path: Path) -> set[str]:
    try:
        return set(json.loads(path.read_text(encoding="utf-8-sig")))
    except (OSError, ValueError, TypeError):
        return set()  # a run says what is wrong with it


def _in_one_line(problem: Problem) -> str:
    parts = (problem.what, problem.got and f": {problem.got}", problem.fix and f" ({problem.fix})")
    return "".join(part for part in parts if part)


def _check_json(words: Sequence[str]) -> None:
    """{"ok", "verb", "warnings", "problems"} on standard output; the exit code is the same as without --json."""
    from dataclasses import asdict

    try:
        config = load(words, "check", show_warnings=False)
        check_template(config)
    except TunesmithError as error:
        problems = [asdict(problem) for problem in error.problems]
        print_json({"ok": False, "verb": None, "warnings": [], "problems": problems})
        raise typer.Exit(error.exit_code) from error
    print_json(
        {"ok": True, "verb": config.verb, "warnings": [*config.warnings, *missing_inputs(config)], "problems": []}
    )
