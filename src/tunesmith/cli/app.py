"""The typer application: a table of verbs, each imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from tunesmith._version import __version__
from tunesmith.core.errors import Problem, UsageError
from tunesmith.core.suggest import did_you_mean

__all__ = ["CONTEXT", "VERBS", "WORDS", "Verb", "VerbGroup", "invoke", "make_app"]

# Verb -> (module, what it does). The order is that of the help.
VERBS: dict[str, tuple[str, str]] = {
    "train": ("tunesmith.cli.train", "train as a config says"),
    "predict": ("tunesmith.cli.predict", "answers to the rows of a dataset, and how close they are"),
    "score": ("tunesmith.cli.score", "what a reward model gives to the rows of a dataset"),
    "eval": ("tunesmith.cli.eval", "benchmarks: MMLU, C-Eval, CMMLU, lm-evaluation-harness"),
    "runs": ("tunesmith.cli.runs", "ls, show, tail, stop, compare, rm, tag, verify: your runs"),
    "queue": ("tunesmith.cli.queue", "add, ls, rm, pause, resume, run, logs: runs one after the other"),
    "chat": ("tunesmith.cli.chat", "talk with a model, with or without an adapter"),
    "api": ("tunesmith.cli.api", "serve a model to OpenAI's clients (also: serve)"),
    "export": ("tunesmith.cli.export", "merge an adapter into its base model and save it"),
    "stats": ("tunesmith.cli.stats", "ppl, lr, flops, mfu, lengths: figures of a config or a run"),
    "convert": ("tunesmith.cli.convert", "checkpoints in other layouts: llama-pro, DCP, PiSSA, LoftQ ..."),
    "demo": ("tunesmith.cli.demo", "teach a small chat model something, before and after"),
    "init": ("tunesmith.cli.init", "write a short config to start from"),
    "config": ("tunesmith.cli.config", "show, check: what a config means; schema: every key"),
    "data": ("tunesmith.cli.data", "preview, check: rows as the model sees them; faults in them"),
    "template": ("tunesmith.cli.template", "list, show, render, check: chat templates"),
    "models": ("tunesmith.cli.models", "list, show, search: names, hub ids and templates of models"),
    "explain": ("tunesmith.cli.explain", "what an error code means and how to mend it"),
    "env": ("tunesmith.cli.env", "versions, device and settings, for a bug report"),
    "version": ("tunesmith.cli.version", "the version of Tunesmith"),
}

ALIASES = {"serve": "api"}

EPILOG = """\b
Examples:
  tunesmith demo
  tunesmith init --model Qwen/Qwen3-0.6B --data my_rows.jsonl
  tunesmith data preview run.yaml
  tunesmith train run.yaml learning_rate=1e-4
  tunesmith chat run.yaml
  tunesmith export run.yaml export_dir=merged

\b
key=value, --key value and --key=value are the same and overrule the file.
`tunesmith VERB --help` tells more about a verb; --debug shows tracebacks.
"""

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 80}
# For verbs that take a config file and keys: whatever is not an option of the verb goes to `arguments.split`.
WORDS: dict[str, Any] = {**CONTEXT, "allow_extra_args": True, "ignore_unknown_options": True}


class _QuickHelp:
    """Gives the option --help the default False instead of None: typer (0.29) imports pydantic to make a bool of a
    None, which costs every start of the program 0.1 s."""

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)  # type: ignore[misc]
        if option is not None and option.default is None:
            option.default = False
        return option


class Verb(_QuickHelp, TyperCommand):
    """A verb. `@app.command(cls=Verb)`"""


class VerbGroup(_QuickHelp, TyperGroup):
    """A group whose unknown sub-commands are errors of ours, with a suggestion."""

    kind = "sub-command"

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if not name.startswith("-") and name not in self.list_commands(ctx):
            known = self.list_commands(ctx)
            fix = did_you_mean(name, known) or "one of: " + ", ".join(known)
            if name.endswith((".yaml", ".yml", ".json", ".toml")):
                fix = f"a verb comes first: {ctx.command_path} {known[0]} {name}"
            raise UsageError(Problem("E-CLI-001", f'unknown {self.kind} "{name}" of {ctx.command_path}', fix=fix))
        return super().resolve_command(ctx, args)


class LazyGroup(VerbGroup):
    """The verbs of the table. Listing them imports none of them."""

    kind = "verb"

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        return super().resolve_command(ctx, [ALIASES.get(args[0], args[0]), *args[1:]])

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in VERBS:
            return None
        command = typer.main.get_command(import_module(VERBS[cmd_name][0]).app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, line) for name, (_, line) in VERBS.items()])


def make_app(**settings: Any) -> typer.Typer:
    """A typer app with this project's settings: plain help, and tracebacks left to `main`."""
    settings = {
        "cls": VerbGroup,
        "context_settings": CONTEXT,
        "add_completion": False,
        "no_args_is_help": True,
        "rich_markup_mode": None,
        "pretty_exceptions_enable": False,
        **settings,
    }
    return typer.Typer(**settings)


app = make_app(cls=LazyGroup, epilog=EPILOG, subcommand_metavar="VERB ...", options_metavar="")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"tunesmith {__version__}")
        raise typer.Exit


@app.callback()
def tunesmith(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Fine-tune open language models: one config in, one checked model out."""


def invoke(words: Sequence[str]) -> int:
    """Parse and run; returns the exit code. Errors of the parser become ours, all others travel.

    The parser's own `main` is not used: it would turn Ctrl-C, and an EOFError of anybody, into "Aborted!".
    """
    group = typer.main.get_command(app)
    try:
        with group.make_context("tunesmith", list(words) or ["--help"]) as context:
            group.invoke(context)
    except typer.Exit as done:
        return int(done.exit_code)
    except typer.Abort as aborted:
        raise KeyboardInterrupt from aborted
    except Exception as error:
        # Usage errors of the parser, known by their shape: typer has had two homes for these classes.
        if hasattr(error, "format_message") and hasattr(error, "show"):
            place: typer.Context | None = getattr(error, "ctx", None)
            if type(error).__name__ == "NoArgsIsHelpError" and place:
                print(place.get_help())
                return 0
            fix = f"{place.command_path if place else 'tunesmith'} --help"
            raise UsageError(Problem("E-CLI-003", error.format_message(), fix=fix)) from error
        raise
    return 0
