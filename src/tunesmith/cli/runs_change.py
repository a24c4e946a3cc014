"""`tunesmith runs stop|rm|tag`: what changes a run."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli.output import file_size, print_json
from tunesmith.core.errors import Problem, UsageError

if TYPE_CHECKING:
    from tunesmith.runs.row import Row

__all__ = ["TAG_WORDS", "remove", "stop", "tag"]

# `-x` takes a tag away, so it is no option.
TAG_WORDS = {"help_option_names": ["--help"], "allow_extra_args": True, "ignore_unknown_options": True}
_TAG = re.compile(r"[\w][\w.:/-]{0,49}")

AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]


def stop(
    run: Annotated[str, typer.Argument(metavar="RUN", show_default=False, help="Folder, id or name.")],
    now: Annotated[bool, typer.Option("--now", help="Leave at once, without a checkpoint.")] = False,
    save: Annotated[bool, typer.Option("--save", help="Save a checkpoint and go on.")] = False,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=0, help="Wait so long for it.")] = 120,
    as_json: AsJson = False,
) -> None:
    """Stop a run, after it has saved a checkpoint.

    The same command as before goes on from there. A run saves and stops at the
    end of its current step.
    """
    from tunesmith.runs.find import find
    from tunesmith.runs.stopping import save_now, stop, stop_now

    if now and save:
        raise UsageError(
            Problem("E-RUN-009", "--now leaves without saving, --save saves and goes on", fix="one of them")
        )
    (row,) = find([run])
    after = save_now(row, timeout) if save else stop_now(row) if now else stop(row, timeout)
    if as_json:
        print_json(after.for_scripts())
    else:
        print(_told(after))


def _told(row: Row) -> str:
    """What happened, and how it goes on."""
    from tunesmith.runs.summary import checkpoints

    kept = checkpoints(row.folder)
    newest = f"{kept[-1]['name']} is kept" if kept else "no checkpoint was saved"
    place = f"{row.status} at step {row.done} of {row.total}"
    if row.goes_on or row.status == "finished":
        return f"{place}: {newest}"
    return f"{place}: {newest}; the same command " + ("goes on from it" if kept else "begins anew")


def remove(
    runs: Annotated[list[str], typer.Argument(metavar="RUN ...", show_default=False, help="Folders, ids or names.")],
    keep_files: Annotated[bool, typer.Option("--keep-files", help="Only forget them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete runs with all that is in their folders, or only forget them."""
    from tunesmith.runs.find import find
    from tunesmith.runs.index import rows
    from tunesmith.runs.removing import bytes_of, check_removable
    from tunesmith.runs.removing import remove as remove_run

    chosen = list({row.id: row for row in find(runs)}.values())
    check_removable(chosen, rows(), keep_files=keep_files)
    for row in chosen:
        size = "" if keep_files or row.gone else f", {file_size(bytes_of(row.folder))}"
        print(f"{row.id}  {row.name}  {row.status}  {row.output_dir}{size}")
    what = "forget" if keep_files else "delete"
    if not yes and not _agreed(f"{what} {len(chosen)} run{'s' if len(chosen) > 1 else ''}? [y/N] "):
        print("nothing is changed")
        return
    for row in chosen:
        remove_run(row, keep_files=keep_files)
    print(f"{'forgotten' if keep_files else 'deleted'}: {len(chosen)}")


def _agreed(question: str) -> bool:
    """Raises UsageError where nobody can answer."""
    print(question, end="", flush=True)
    answer = sys.stdin.readline()
    if not answer:
        print()
        raise UsageError(Problem("E-RUN-010", "nobody answers whether to delete", fix="--yes"))
    return answer.strip().lower() in ("y", "yes")


def tag(context: typer.Context) -> None:
    """Add tags to a run, or take them away: +good adds, -good takes away.

    tunesmith runs tag first +good -unsure
    """
    from tunesmith.runs import manifest
    from tunesmith.runs.find import find

    if not context.args:
        raise UsageError(Problem("E-RUN-011", "no run is named", fix="tunesmith runs tag RUN +TAG -TAG"))
    run, *words = context.args
    for word in words:
        if word[0] not in "+-" or not _TAG.fullmatch(word[1:]):
            fix = "+TAG adds, -TAG takes away; letters, digits and . _ - : /"
            raise UsageError(Problem("E-RUN-011", "this is no tag to add or to take away", got=word, fix=fix))
    (row,) = find([run])
    if words:
        with manifest.changing(row.folder) as found:
            tags = dict.fromkeys(found["tags"])
            for word in words:
                tags |= {word[1:]: None}
                if word[0] == "-":
                    del tags[word[1:]]
            found["tags"] = list(tags)
        (row,) = find([str(row.folder)])
    print(", ".join(row.tags) or "no tags")
