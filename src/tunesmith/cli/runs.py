"""`tunesmith runs ls|show|tail|stop|compare|rm|tag|verify`: the runs of this user, from the records that they keep."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli import runs_change, runs_compare, runs_verify
from tunesmith.cli.app import Verb, make_app
from tunesmith.cli.output import print_json
from tunesmith.core.errors import Problem, UsageError

if TYPE_CHECKING:
    from tunesmith.runs.row import Row

EPILOG = """\b
Examples:
  tunesmith runs ls --status running
  tunesmith runs show first
  tunesmith runs tail -f 3f2a
  tunesmith runs stop saves/first
  tunesmith runs compare first second --plot curves.png
\b
RUN is a folder (output_dir), an id or its beginning, or a name (run_name, or
else that of the folder).
"""

app = make_app(help="Your runs.", subcommand_metavar="VERB ...", epilog=EPILOG)

AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]
Run = Annotated[str, typer.Argument(metavar="RUN", show_default=False, help="Folder, id or name.")]


@app.callback()
def _runs() -> None:
    """Your runs: what goes on, what came of it, and whether it is still what it was."""


@app.command("ls", cls=Verb)
def list_(
    status: Annotated[
        list[str] | None, typer.Option(metavar="STATUS", help="Only runs that are running, died, ... May be repeated.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="TAG", help="Only runs that have all these tags.")] = None,
    as_json: AsJson = False,
) -> None:
    """List runs, the last begun first."""
    from tunesmith.runs.index import rows
    from tunesmith.runs.row import STATUSES

    if unknown := [word for word in status or () if word not in STATUSES]:
        what = f'no run has the status "{unknown[0]}"'
        raise UsageError(Problem("E-RUN-003", what, fix="one of: " + ", ".join(STATUSES)))
    found = [
        row for row in rows() if (not status or row.status in status) and all(word in row.tags for word in tag or ())
    ]
    if as_json:
        print_json([row.for_scripts() for row in found])
    elif found:
        _print_table(found)
    else:
        print("no such run" if status or tag else "no run yet: tunesmith train begins one")


def _print_table(rows: list[Row]) -> None:
    from tunesmith.cli.runs_text import HEAD, row_line

    print(HEAD)
    for row in rows:
        print(row_line(row))


@app.command(cls=Verb)
def show(run: Run, as_json: AsJson = False) -> None:
    """Show a run: status, metrics, checkpoints, events."""
    from tunesmith.runs.find import find
    from tunesmith.runs.summary import summary

    (row,) = find([run])
    if as_json:
        print_json(summary(row))
        return
    from tunesmith.cli.runs_text import show_lines

    print("\n".join(show_lines(row, summary(row))))


@app.command(cls=Verb)
def tail(
    run: Run,
    number: Annotated[int, typer.Option("-n", metavar="N", min=0, help="So many lines of the end.")] = 10,
    keep_on: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the run has ended.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The lines as they are in the file.")] = False,
) -> None:
    """Print the end of a run's log: loss, speed, time to go."""
    from tunesmith.runs.find import find
    from tunesmith.runs.log_text import follow
    from tunesmith.train.callbacks.names import LOG_NAME

    (row,) = find([run])
    log = row.folder / LOG_NAME
    text = log.read_bytes() if log.is_file() else b""
    text = text[: text.rfind(b"\n") + 1]
    _print_lines(b"".join(text.splitlines(keepends=True)[-number:]) if number else b"", as_json)
    if not text and not keep_on:
        print(f"nothing is logged yet ({row.status})", file=sys.stderr)
    if keep_on:
        for more in follow(log, lambda: find([str(row.folder)])[0].goes_on, at=len(text)):
            _print_lines(more, as_json)
        (row,) = find([str(row.folder)])
        print(f"{row.status} at step {row.done}/{row.total}", file=sys.stderr)


def _print_lines(text: bytes, as_json: bool) -> None:
    from tunesmith.runs.log_text import line_text
    from tunesmith.train.callbacks.log_lines import parse_lines

    if as_json:
        sys.stdout.write(text.decode("utf-8", "replace"))
    else:
        sys.stdout.writelines(line_text(line) + "\n" for line in parse_lines(text))
    sys.stdout.flush()


app.command(cls=Verb)(runs_change.stop)
app.command(cls=Verb)(runs_compare.compare)
app.command("rm", cls=Verb)(runs_change.remove)
app.command(cls=Verb, context_settings=runs_change.TAG_WORDS, options_metavar="RUN +TAG -TAG ...")(runs_change.tag)
app.command(cls=Verb)(runs_verify.verify)
