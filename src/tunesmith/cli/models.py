"""`tunesmith models list|show|search`: the catalog of models. Reads data files only."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap
from typing import Annotated

import typer

from tunesmith.cli.app import WORDS, Verb, make_app
from tunesmith.cli.output import print_json, table_lines
from tunesmith.core.errors import Problem, UsageError
from tunesmith.core.suggest import did_you_mean
from tunesmith.models.catalog import TAGS, CatalogModel, all_models, find, find_id, suggestion

EPILOG = """\b
Examples:
  tunesmith models list --family Qwen3
  tunesmith models list --tag instruct --tag vision
  tunesmith models search coder 7b
  tunesmith models show Qwen3-4B-Instruct

\b
Every name can be written as model_name_or_path in a config.
"""

FILTERS = f"""\b
Filters:
  --tag TAG        only these; may be repeated: {", ".join(TAGS[:2])},
                   {", ".join(TAGS[2:])}
  --template NAME  only models with this default template
  --family NAME    only this family, for example Qwen2.5-VL
"""

_FILTERS = ("tag", "template", "family")
_WIDTH = 80
_NAME, _TEMPLATE = 35, 16  # the widest columns; longer names push their own line

app = make_app(help="The catalog of models.", subcommand_metavar="list|show|search ...", epilog=EPILOG)

AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]


@app.callback()
def _models() -> None:
    """The catalog of models."""


# Names and filters are taken from the words: declared, they would cost the import of pydantic (see `app._QuickHelp`).
@app.command("list", cls=Verb, context_settings=WORDS, options_metavar="[FILTERS]", epilog=FILTERS)
def list_(context: typer.Context, as_json: AsJson = False) -> None:
    """List names, default templates and tags.

    Models that are not marked base are tuned for chat.
    """
    words, filters = _split(context.args)
    if words:
        fix = "tunesmith models search " + " ".join(words)
        raise UsageError(Problem("E-CLI-002", f'the word "{words[0]}" belongs to nothing', fix=fix))
    _print(_filtered(all_models(), filters), as_json)


@app.command(cls=Verb, context_settings=WORDS, options_metavar="WORD ... [FILTERS]", epilog=FILTERS)
def search(context: typer.Context, as_json: AsJson = False) -> None:
    """Find names and ids by words.

    Every word must be in the name, family, maker or ids. Exit code 1 if there is none.
    """
    words, filters = _split(context.args)
    if not words:
        raise UsageError(Problem("E-CLI-016", "which words?", fix="tunesmith models search coder 7b"))
    found = [model for model in all_models() if all(word.lower() in _text(model) for word in words)]
    found = _filtered(found, filters)
    _print(found, as_json)
    if not found:
        if hint := suggestion("-".join(words)):
            print(hint, file=sys.stderr)
        raise typer.Exit(1)


@app.command(cls=Verb, context_settings=WORDS, options_metavar="NAME")
def show(context: typer.Context, as_json: AsJson = False) -> None:
    """Show all about one model.

    Its ids on every hub, template, size, tags, and where the catalog has them from.
    """
    words, _ = _split(context.args, ())
    if len(words) != 1:
        raise UsageError(Problem("E-CLI-016", "which model?", fix="tunesmith models show Qwen3-4B-Instruct"))
    (name,) = words
    model = find_id(name) or find(name)
    if model is None:
        fix = suggestion(name) or "tunesmith models search WORD"
        raise UsageError(Problem("E-CLI-017", f'no model "{name}" in the catalog', fix=fix))
    if as_json:
        print_json(model.as_dict())
        return
    print(model.name)
    for line in table_lines(_facts(model), indent="  "):
        print("\n".join(wrap(line, _WIDTH, subsequent_indent=" " * 16, break_on_hyphens=False)))


def _split(words: Sequence[str], known: Sequence[str] = _FILTERS) -> tuple[list[str], dict[str, list[str]]]:
    """Plain words, and the values of `--key value`, `--key=value` and `key=value`. Raises UsageError for other keys."""
    plain: list[str] = []
    filters: dict[str, list[str]] = {key: [] for key in known}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if not equals and not word.startswith("-"):
            plain.append(word)
        elif key not in filters or not (equals or rest):
            what = f'"{word}" needs a value' if key in filters else f'unknown option "{word}"'
            options = [f"--{name}" for name in (*known, "json", "help")]
            fix = None if key in filters else did_you_mean(f"--{key}", options) or "one of: " + ", ".join(options)
            raise UsageError(Problem("E-CLI-003", what, fix=fix))
        else:
            filters[key] += (value if equals else rest.pop(0)).split(",")
    return plain, filters


def _facts(model: CatalogModel) -> dict[str, str]:
    facts = {
        "family": f"{model.family}, by {model.maker}",
        "also called": ", ".join(model.aliases),
        "Hugging Face": model.hf,
        "ModelScope": model.modelscope,
        "openMind": model.openmind,
        "size": _size(model),
        "tags": ", ".join(model.tags),
        "template": model.template or "none here: the model's own, else default",
        "source": model.source,
    }
    return {name: value for name, value in facts.items() if value}


def _filtered(models: Iterable[CatalogModel], filters: Mapping[str, Sequence[str]]) -> list[CatalogModel]:
    """The models with every tag, and with one of the templates and families that are asked for.

    Raises UsageError for values that no model has.
    """
    everything = all_models()
    tags = set(_known("tag", filters["tag"], TAGS))
    templates = _known("template", filters["template"], {model.template for model in everything if model.template})
    families = _known("family", filters["family"], {model.family for model in everything})
    return [
        model
        for model in models
        if tags <= set(model.tags)
        and (not templates or model.template in templates)
        and (not families or model.family in families)
    ]


def _known(key: str, values: Sequence[str], known: Iterable[str]) -> list[str]:
    """The values as the catalog spells them."""
    spelling = {name.lower(): name for name in sorted(known)}
    for value in values:
        if value.lower() not in spelling:
            names = list(spelling.values())
            fix = did_you_mean(value, names) or "one of: " + ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            raise UsageError(Problem("E-CLI-018", f'no model has {key} "{value}"', f"--{key}", fix=fix))
    return [spelling[value.lower()] for value in values]


def _text(model: CatalogModel) -> str:
    ids = [model.hf, model.modelscope or "", model.openmind or ""]
    return " ".join([model.name, *model.aliases, model.family, model.maker, *ids]).lower()


def _size(model: CatalogModel) -> str:
    """`30B-A3B`: of 30B parameters, 3B are used per token."""
    return "-".join(filter(None, [model.size, f"A{model.active}" if model.active else None]))


def _print(models: Sequence[CatalogModel], as_json: bool) -> None:
    if as_json:
        print_json([model.as_dict() for model in models])
        return
    # The size is in the name, and most models are tuned for chat: neither is said again, so that a line is enough.
    rows = [
        (model.name, model.template or "-", " ".join(tag for tag in model.tags if tag != "instruct"))
        for model in models
    ]
    names = min(_NAME, max((len(name) for name, _, _ in rows), default=0))
    templates = min(_TEMPLATE, max((len(template) for _, template, _ in rows), default=0))
    for name, template, tags in rows:
        line = f"{name:<{names}}  {template:<{templates}}  {tags}".rstrip()
        print(line if len(line) <= _WIDTH else "\n".join(wrap(line, _WIDTH, subsequent_indent=" " * 6)))
    print("1 model" if len(rows) == 1 else f"{len(rows)} models")
