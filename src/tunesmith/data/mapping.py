"""Which format reads a dataset, and with which columns: as its spec says, else as its first rows show.

What cannot be settled becomes an error that proposes what to write, as YAML for the config and as an entry of
dataset_info.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.suggest import did_you_mean
from tunesmith.data.detect import NAMES, Layout, detect, fitting, lacking, unreadable
from tunesmith.data.formats import FORMATS, Format
from tunesmith.data.formats.base import KINDS

if TYPE_CHECKING:
    from tunesmith.data.dataset_info import DatasetSpec

__all__ = ["absent_columns", "as_entry", "as_yaml", "check_labels", "make_format"]

Head = Sequence[Mapping[str, Any]]

_TEXT_ONLY = "use stage: sft, or list the columns that are to be read in dataset_info.json"
_PLACEHOLDERS = {
    "document": Layout("text", {"prompt": "<column>"}),
    "chat": Layout("alpaca", {"prompt": "<column>", "response": "<column>"}),
    "preference": Layout("alpaca", {"prompt": "<column>", "chosen": "<column>", "rejected": "<column>"}),
    "feedback": Layout("alpaca", {"prompt": "<column>", "response": "<column>", "kto_tag": "<column>"}),
    "prompt": Layout("alpaca", {"prompt": "<column>"}),
}
"""What to paste where the columns have no name that tells their meaning."""


def make_format(spec: DatasetSpec, head: Head, stage: str) -> tuple[Format | None, list[str]]:
    """The format of a dataset and what to say about it; None where the first rows are all broken.

    `head`: the first rows. Raises DataError where no format fits them, the stage or the columns.
    """
    if not head and spec.format is None:
        return None, []
    if spec.format is not None:
        format_class = FORMATS.get(spec.format)
        if stage not in format_class.needed or (spec.ranking and KINDS[stage] in ("chat", "feedback", "document")):
            raise DataError(_unfit_stage(spec, format_class, stage))
        format_ = format_class(stage, spec.columns, spec.tags, merge_consecutive=spec.merge_consecutive)
        if missing := format_.unmapped():
            raise DataError([_unmapped(spec, format_, meaning, head, stage) for meaning in missing])
        return format_, []
    if unfit := unreadable(head, stage):
        raise DataError(Problem("E-DATA-018", f"the rows hold {unfit}", spec.location, fix=_TEXT_ONLY))
    layout = detect(head, stage)
    if layout is None:
        raise DataError(_undetected(spec, head, stage))
    others = [name for name in dict.fromkeys(chain(*head)) if name not in layout.columns.values()]
    unread = f"; not read: {', '.join(others)}" if others and KINDS[stage] != "prompt" else ""
    format_ = FORMATS.get(layout.format)(stage, layout.columns, spec.tags, merge_consecutive=spec.merge_consecutive)
    return format_, [f"{spec.name}: read as {layout}{unread}"]


def as_yaml(path: str, layout: Layout) -> str:
    """The value of `dataset` in a config that reads a file with this layout."""
    columns = ", ".join(f"{meaning}: {_scalar(column)}" for meaning, column in layout.columns.items())
    return f"dataset: [{{path: {_scalar(path)}, format: {layout.format}, columns: {{{columns}}}}}]"


def as_entry(file_name: str, layout: Layout) -> str:
    """The same as an entry of dataset_info.json, in one line."""
    entry = {"file_name": file_name, "formatting": layout.format, "columns": dict(layout.columns)}
    return json.dumps({"my_data": entry}, ensure_ascii=False)


def _scalar(text: str) -> str:
    """A text as YAML can hold it inside of brackets."""
    plain = (
        text and all(char.isalnum() or char in "_-./<>" for char in text) and text[0].isalpha() | (text[0] in "./<_")
    )
    return (
        text if plain and text.lower() not in ("null", "true", "false", "yes", "no", "on", "off") else json.dumps(text)
    )


def _paste(spec: DatasetSpec, layout: Layout) -> str:
    entry = as_entry(PurePath(spec.location).name, layout)
    return f"{as_yaml(spec.location, layout)} or, as an entry of dataset_info.json, {entry}"


def absent_columns(
    spec: DatasetSpec, format_: Format | None, columns: Iterable[str], head: Head, stage: str
) -> list[Problem]:
    """Columns that the format expects and that no row has: one problem each instead of one per row. `columns`: the
    names of all rows."""
    names = list(columns)
    problems: list[Problem] = []
    if format_ is None:
        return problems
    for meaning, column in format_.expected():
        if column in names:
            continue
        guess = detect(head, stage)
        fix = did_you_mean(column, [name for name in names if name not in format_.columns.values()])
        if guess is not None and (fix is None or guess.format != spec.format):
            fix = f"the rows look like {guess.format}; if that is meant: {_paste(spec, guess)}"
        elif fix is None:
            others = " or ".join(fitting(head))
            fix = f"as they are, the rows fit stage {others}" if others else "name the column in dataset_info.json"
        what = f'no row has the column "{column}" ({meaning})'
        problems.append(Problem("E-DATA-011", what, spec.location, f"columns: {', '.join(names)}", fix))
    return problems


def _unmapped(spec: DatasetSpec, format_: Format, meaning: str, head: Head, stage: str) -> Problem:
    names = dict.fromkeys(name for row in head for name in row)
    guess = detect(head, stage)
    column = (guess.columns.get(meaning) if guess else None) or format_.default_columns.get(meaning, "<column>")
    fix = f'add "{meaning}": "{column}" to its columns in dataset_info.json'
    if column not in names and (others := fitting(head)):
        fix += f"; as they are, the rows fit stage {' or '.join(others)}"
    return Problem(
        "E-DATA-011",
        f'the columns of dataset "{spec.name}" name no {meaning} (a columns block replaces all defaults)',
        where=spec.location,
        got=f"columns of the file: {', '.join(names)}",
        fix=fix,
    )


def _unfit_stage(spec: DatasetSpec, format_class: type[Format], stage: str) -> Problem:
    fit = [one for one in format_class.needed if one != "prompt"]
    if spec.ranking:
        fit = [one for one in fit if KINDS[one] in ("preference", "prompt")]
    rows = "ranking pairs" if spec.ranking else f'rows of format "{spec.format}"'
    what = f"{rows} cannot be used for stage {stage}"
    return Problem("E-DATA-027", what, spec.location, fix=f"stage: {' or '.join(fit)}, or another dataset")


def _undetected(spec: DatasetSpec, head: Head, stage: str) -> Problem:
    """Rows of another stage, or rows that tell nothing."""
    names = list(dict.fromkeys(name for row in head for name in row))
    got = f"columns: {', '.join(names)}"
    others, missing = fitting(head), lacking(head, stage)
    if len(missing) == 1 and not set(others) - {"ppo"} and KINDS[stage] != "document":
        known = ", ".join(NAMES.get(missing[0], missing))
        what = f"no column for the meaning {missing[0]}, which stage {stage} needs (known names: {known})"
        fix = f"say which column it is: {_paste(spec, _PLACEHOLDERS[KINDS[stage]])}"
        return Problem("E-DATA-011", what, spec.location, got, fix)
    if not others:
        fix = f"say what they mean: {_paste(spec, _PLACEHOLDERS[KINDS[stage]])}"
        return Problem("E-DATA-022", "the columns do not tell the format", spec.location, got, fix)
    first = next(iter(others.values()))
    what = f"the rows look like {first}, which stage {stage} cannot use"
    what += f"; it needs {' and '.join(missing)} as well" if missing and KINDS[stage] != "document" else ""
    return Problem("E-DATA-027", what, spec.location, got, f"stage: {' or '.join(others)}")


def check_labels(name: str, tallies: Mapping[str, int]) -> Problem | None:
    """The problem of feedback of one kind only, from the tallies of all training data; it teaches no difference."""
    liked, disliked = tallies.get("liked", 0), tallies.get("disliked", 0)
    if bool(liked) == bool(disliked):
        return None
    what = f"all {liked or disliked:,} labels are {'true' if liked else 'false'}: stage kto needs both kinds"
    return Problem("E-DATA-061", what, where=name, fix="add answers of the other kind, or use stage: sft")
