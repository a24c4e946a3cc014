"""`tunesmith data cache ls|rm`: prepared data that is kept."""

from __future__ import annotations

from typing import Annotated

import typer

from tunesmith.cli.app import make_app
from tunesmith.cli.output import file_size, print_json
from tunesmith.core.errors import Problem, UsageError

EPILOG = """\b
Examples:
  tunesmith data cache ls
  tunesmith data cache rm 3f2a
  tunesmith data cache rm --unused-for 30
  tunesmith data cache rm --all
"""

app = make_app(help="Prepared data that is kept.", subcommand_metavar="ls|rm ...", epilog=EPILOG)

_KEY = 12  # characters of a key that are shown


@app.callback()
def _cache() -> None:
    """Prepared data that is kept. It can all be made again."""


@app.command("ls")
def list_(as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """List what is kept, the last used first; also what was interrupted, where the next run goes on."""
    from tunesmith.data.cache import age, entries

    found = list(entries())
    if as_json:
        print_json(
            [
                {
                    "key": one.key,
                    "dataset": one.name,
                    "bytes": one.bytes,
                    "days": round(age(one), 2),
                    "path": str(one.folder),
                    "finished": one.finished,
                }
                for one in found
            ]
        )
        return
    if not found:
        print("nothing is kept")
        return
    print(f"{'key':<{_KEY}}{'size':>9}  {'used':<13} dataset")
    for one in found:
        state = "" if one.finished else " (interrupted)"
        print(f"{one.key[:_KEY]}{file_size(one.bytes):>9}  {_days(age(one)):<13} {one.name}{state}")
    print(f"{file_size(sum(one.bytes for one in found))} in {len(found)}")


@app.command("rm", epilog=EPILOG)
def remove_(
    keys: Annotated[list[str] | None, typer.Argument(metavar="[KEY ...]", help="Keys, or their beginnings.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that is kept.")] = False,
    unused_for: Annotated[
        float | None, typer.Option("--unused-for", metavar="DAYS", min=0, help="What was not used for so long.")
    ] = None,
) -> None:
    """Remove what is kept. A run that reads it goes on; the next one makes it again."""
    from tunesmith.data.cache import age, entries, remove

    if not keys and not everything and unused_for is None:
        raise UsageError(Problem("E-CLI-012", "nothing to remove is named", fix="keys, --all, or --unused-for DAYS"))
    found = list(entries())
    chosen = []
    for key in keys or ():
        matching = [one for one in found if one.key.startswith(key)]
        if len(matched := {one.key for one in matching}) != 1:
            what = "is kept under no key" if not matched else f"is the beginning of {len(matched)} keys"
            raise UsageError(Problem("E-CLI-012", f'"{key}" {what}', fix="tunesmith data cache ls shows the keys"))
        chosen += matching
    chosen += [one for one in found if everything or (unused_for is not None and age(one) >= unused_for)]
    removed = {one.folder: one for one in chosen}
    for one in removed.values():
        remove(one)
    print(f"removed {len(removed)}: {file_size(sum(one.bytes for one in removed.values()))}")


def _days(days: float) -> str:
    return "today" if days < 1 else "yesterday" if days < 2 else f"{days:.0f} days ago"
