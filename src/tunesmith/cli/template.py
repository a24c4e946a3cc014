"""`tunesmith template list|show|render|check`: the catalog of chat templates, and whether one fits a model."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.app import Verb, make_app
from tunesmith.cli.output import has_colour, print_json
from tunesmith.core import log
from tunesmith.core.errors import Problem, UsageError

if TYPE_CHECKING:
    from tunesmith.render.checking import Checked, Finding
    from tunesmith.render.renderer import Renderer

_SHOWN = 3  # differences that are printed in full

app = make_app(help="Chat templates: list, show, render, check.", subcommand_metavar="list|show|render|check ...")

AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]
Model = Annotated[str, typer.Option(metavar="PATH_OR_ID", help="A model's folder or hub id.")]
Data = Annotated[Path | None, typer.Option(metavar="FILE", help="Your own chats, beside or in place of built-in ones.")]
Rows = Annotated[int, typer.Option(metavar="N", min=1, help="How many chats, or rows of --data.")]
Name = Annotated[str, typer.Option("--template", metavar="NAME", help="A name of the catalog, a YAML file, or auto.")]


@app.callback()
def _template() -> None:
    """Chat templates: list, show, render, check."""


@app.command("list", cls=Verb)
def list_(as_json: AsJson = False) -> None:
    """List the catalog's templates, whose text each was compared with, and in which form it writes tools."""
    from tunesmith.render.slot_files import raw_template, template_names

    rows = []
    for name in template_names():
        raw = raw_template(name)
        missing = raw.get("source") == "missing"
        verified = "source: missing" if missing else raw.get("verified", "none")
        rows.append({"name": name, "verified": verified, "tools": (raw.get("tools") or {}).get("dialect")})
    if as_json:
        print_json(rows)
        return
    names, witnesses = (max(len(row[key]) for row in rows) for key in ("name", "verified"))
    for row in rows:
        print(f"{row['name']:<{names}}  {row['verified']:<{witnesses}}  {row['tools'] or '-'}")


@app.command(cls=Verb, options_metavar="NAME")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Show a template: its file, and the files that it extends."""
    from tunesmith.render.slot_files import load_slots, raw_template

    raw = raw_template(name)
    if raw.get("source") != "missing":
        load_slots(name)  # a template with mistakes is an error here
    if as_json:
        print_json(raw)
        return
    for text in _texts(name):
        print(text)


def _texts(name: str, beside: Path | None = None) -> Iterator[str]:
    """The text of a template's file, and of those that it extends, each under its name."""
    import yaml

    if name.endswith((".yaml", ".yml")):
        path = (beside or Path()) / name
        text, folder = path.read_text(encoding="utf-8"), path.parent
    else:
        text = files("tunesmith").joinpath("catalog", "templates", f"{name}.yaml").read_text(encoding="utf-8")
        folder = None
    yield f"# ---- {name}\n{text}".rstrip()
    if parent := (yaml.safe_load(text) or {}).get("extends"):
        yield from _texts(str(parent), folder)


@app.command(cls=Verb)
def render(
    model: Model,
    template: Name = "auto",
    data: Data = None,
    rows: Rows = 3,
    as_json: AsJson = False,
) -> None:
    """Print chats as the template writes them; what is trained stands between marks."""
    from tunesmith.render.checking import builtin_chats, marked_text
    from tunesmith.render.places import shortened

    renderer = _renderer(model, template)
    chats = _rows_of(data, rows) if data else dict(list(builtin_chats().items())[:rows])
    shown = {
        case: [shortened(marked_text(sample), renderer.media) for sample in renderer.samples(chat)]
        for case, chat in chats.items()
    }
    if as_json:
        print_json(shown)
        return
    for case, samples in shown.items():
        print(f"== {case}")
        print("\n-- another sample of the same chat\n".join(samples))


@app.command(cls=Verb)
def check(
    model: Model,
    template: Name = "auto",
    data: Data = None,
    rows: Rows = 100,
    as_json: AsJson = False,
) -> None:
    """Compare a template with the model's own, text by text; for auto, verify which parts are trained.

    Exit code 1 on a difference, 2 where the input cannot be used.
    """
    from tunesmith.render.checking import builtin_chats, check_masks, check_texts

    ours = _renderer(model, template)
    suites: dict[str, Any] = {"built-in chats": builtin_chats()}
    if template != "auto":
        suites["built-in chats with tools"] = builtin_chats(tools=True)
    if data:
        suites[f"rows of {data}"] = _rows_of(data, rows)
    if template == "auto":
        results = {name: check_masks(ours, chats) for name, chats in suites.items()}
    else:
        theirs = _renderer(model, "auto")
        results = {name: check_texts(ours, theirs, chats) for name, chats in suites.items()}
    ok = all(checked.ok for checked in results.values())
    if as_json:
        print_json({"ok": ok, "suites": {name: _as_dict(checked) for name, checked in results.items()}})
    else:
        what = "masks" if template == "auto" else "texts"
        for name, checked in results.items():
            print(f"{name}: {what}: {checked.line()}")
            _print_findings(checked.findings)
    raise typer.Exit(0 if ok else 1)


def _renderer(model: str, template: str) -> Renderer:
    from tunesmith.config.model import ModelConfig
    from tunesmith.config.template import TemplateConfig
    from tunesmith.media.limits import MediaLimits
    from tunesmith.models.media import load_media
    from tunesmith.models.tokenizer import load_tokenizer
    from tunesmith.render import make_renderer

    log.setup()
    config = ModelConfig(model_name_or_path=model)
    tokenizer = load_tokenizer(config)
    media = load_media(config, MediaLimits(), tokenizer)
    wanted = None if template == "auto" else template
    if wanted is None and not tokenizer.chat_template:
        raise UsageError(
            Problem(
                "E-CLI-011",
                "this model has no chat template of its own",
                where=f"--model {model}",
                fix="name one with --template (tunesmith template list)",
            )
        )
    # Thoughts as the data has them: the same on both sides of a comparison.
    return make_renderer(TemplateConfig(template=wanted, enable_thinking=None), tokenizer, media=media)


def _rows_of(data: Path, rows: int) -> dict[str, Any]:
    """The first chats of a file, by their places."""
    from tunesmith.config import load_config
    from tunesmith.data import read_examples

    config = load_config({"dataset": str(data), "max_samples": rows, "model_name_or_path": "unused"}, verb="preview")
    return {str(example.origin): example for example in read_examples(config.data, stage="sft")}  # type: ignore[misc]


def _as_dict(checked: Checked) -> dict[str, Any]:
    found = [
        {"case": item.case, "what": item.what, "ours": item.ours, "theirs": item.theirs} for item in checked.findings
    ]
    counts = {"cases": checked.cases, "equal": checked.equal, "refused": checked.refused}
    return {**counts, "differences": found}


def _print_findings(findings: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, no_color=not has_colour(sys.stdout), soft_wrap=True)
    for finding in findings[:_SHOWN]:
        console.print(Text(f"  {finding.case}: {finding.what}", style="bold"))
        if finding.ours is not None and finding.theirs is not None:
            ours, theirs = finding.parts()
            begin = len(_shared(finding.ours, finding.theirs))
            console.print(Text("    ... ") + Text(repr(finding.ours[max(0, begin - 40) : begin])[1:-1], style="dim"))
            console.print(Text("    this:  ") + Text(repr(ours)[1:-1], style="red"))
            console.print(Text("    model: ") + Text(repr(theirs)[1:-1], style="green"))
        elif finding.ours is not None:
            console.print(Text("    " + finding.ours.replace("\n", "\n    ")))
    if (more := len(findings) - _SHOWN) > 0:
        console.print(f"  ... and {more} more (--json shows all)")


def _shared(one: str, other: str) -> str:
    """What both texts begin with."""
    end = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:end]
