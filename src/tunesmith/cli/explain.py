"""`tunesmith explain CODE`: what an error code means and how to mend it."""

from __future__ import annotations

import re
from importlib.resources import files
from textwrap import fill
from typing import Annotated, Any

import typer

from tunesmith.cli.app import CONTEXT, Verb, make_app
from tunesmith.cli.output import print_json
from tunesmith.core.errors import Problem, UsageError
from tunesmith.core.suggest import did_you_mean

_CODE = re.compile(r"(?:E-)?([A-Z]+)-?(\d+)")
_SUFFIX = ".yaml"
_WIDTH = 80

app = make_app(no_args_is_help=False)


# The code is taken from the words: a declared argument would cost the import of pydantic (see `app._QuickHelp`).
@app.command(cls=Verb, context_settings={**CONTEXT, "allow_extra_args": True}, options_metavar="[CODE ...]")
def explain(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False
) -> None:
    """Explain error codes such as E-DATA-003. Without a code, list all of them."""
    codes = context.args
    entries = dict(find(code) for code in codes) if codes else read_all()
    if as_json:
        print_json([{"code": code, **entry} for code, entry in entries.items()])
    elif not codes:
        for code, entry in entries.items():
            print(f"{code:<14} {entry['title']}")
    else:
        print("\n\n".join(_block(code, entry) for code, entry in entries.items()))


def _block(code: str, entry: dict[str, Any]) -> str:
    head = fill(f"{code}: {entry['title']} (exit code {entry['exit']})", _WIDTH)
    return f"{head}\n\n{fill(entry['text'], _WIDTH, break_long_words=False, break_on_hyphens=False)}"


def areas() -> list[str]:
    """The areas that have a catalog of codes: data, config, ..."""
    return sorted(item.name.removesuffix(_SUFFIX) for item in _folder().iterdir() if item.name.endswith(_SUFFIX))


def read(area: str) -> dict[str, dict[str, Any]]:
    """Code -> {title, exit, text} of one area, in the order of the codes."""
    import yaml

    entries = yaml.safe_load(_folder().joinpath(area + _SUFFIX).read_text(encoding="utf-8")) or {}
    return dict(sorted(entries.items()))


def read_all() -> dict[str, dict[str, Any]]:
    return {code: entry for area in areas() for code, entry in read(area).items()}


def normal(code: str) -> str:
    """`data-3`, `E-DATA-003` and `e-data-003` are the same code."""
    match = _CODE.fullmatch(code.strip().upper())
    return f"E-{match[1]}-{int(match[2]):03d}" if match else code.strip().upper()


def find(code: str) -> tuple[str, dict[str, Any]]:
    """A code in full and what is known about it; only its area's file is read. Raises UsageError with suggestions."""
    name = normal(code)
    area = name.split("-")[1].lower() if name.count("-") == 2 else ""
    if area in areas() and (entry := read(area).get(name)):
        return name, entry
    fix = did_you_mean(name, read_all()) or "tunesmith explain    lists all codes"
    raise UsageError(Problem("E-CLI-007", f'unknown error code "{code}"', fix=fix))


def _folder() -> Any:
    return files("tunesmith").joinpath("catalog", "errors")
