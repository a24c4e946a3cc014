"""Rows of every dataset of a run to examples; whatever is wrong with any of them is told in one error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from tunesmith.core.collector import no_collection
from tunesmith.core.errors import DataError, MissingInputError, Problem, TunesmithError
from tunesmith.core.suggest import did_you_mean
from tunesmith.core.types import Example
from tunesmith.data.bad_rows import BadRows
from tunesmith.data.dataset_info import DatasetSpec, resolve
from tunesmith.data.detect import MESSAGES, detect, snippet, unreadable
from tunesmith.data.formats import FORMATS, Format
from tunesmith.data.mix import sample
from tunesmith.data.report import DatasetReport
from tunesmith.data.rows import Broken, Row, RowError
from tunesmith.data.sources.local import read_path

if TYPE_CHECKING:
    from tunesmith.config.data import DataConfig

__all__ = ["LoadedDataset", "load_datasets", "raise_for_bad_rows"]

_TEXT_ONLY = "use other rows, or list the columns that are to be read in dataset_info.json"
HEAD = 20  # rows that detection looks at


@dataclass(slots=True)
class LoadedDataset:
    """The usable rows of one dataset as examples, and what became of the others."""

    spec: DatasetSpec
    examples: list[Example]
    report: DatasetReport
    bad: BadRows
    notices: list[str] = field(default_factory=list)


def load_datasets(
    data: DataConfig, *, stage: str, seed: int, uses: Sequence[str] = ("train", "eval")
) -> list[LoadedDataset]:
    """All datasets that the config names for the uses `train` (`dataset`) and `eval` (`eval_dataset`).

    Raises one error with everything that is wrong: MissingInputError if only files are missing, else DataError.
    """
    names = {"train": data.dataset, "eval": data.eval_dataset}
    wanted = [(use, name) for use in uses for name in names[use]]
    specs = resolve([name for _use, name in wanted], data.dataset_dir)
    loaded: list[LoadedDataset] = []
    problems: list[Problem] = []
    for (use, _name), spec in zip(wanted, specs, strict=True):
        try:
            with no_collection():  # every row becomes objects that stay: reading is more than twice as fast
                loaded.append(_read(spec, data, stage, use, seed))
        except TunesmithError as error:
            problems += error.problems
    raise_for_bad_rows(loaded, data, problems)
    return loaded


def raise_for_bad_rows(loaded: Sequence[LoadedDataset], data: DataConfig, others: Sequence[Problem] = ()) -> None:
    """One error with the `others` and with all bad rows, unless `on_bad_row` and `max_bad_rows` let these pass.
    A dataset of which nothing is left never passes."""
    problems = list(others)
    total = sum(one.bad.count for one in loaded)
    limit = data.max_bad_rows if data.on_bad_row == "skip" else 0
    too_many = limit is not None and total > limit
    if too_many and data.on_bad_row == "skip":
        problems.append(_too_many(total, limit))
    for one in loaded:
        if one.bad.count and (too_many or not one.examples):
            problems += one.bad.problems(one.report.rows)
    if problems:
        missing = all(problem.code == "E-DATA-020" for problem in problems)
        raise MissingInputError(problems) if missing else DataError(problems)


def _read(spec: DatasetSpec, data: DataConfig, stage: str, use: str, seed: int) -> LoadedDataset:
    rows = read_path(spec.path)
    head = list(islice(rows, HEAD))
    format_, notices = _make_format(spec, [row.values for row in head if not isinstance(row.values, Broken)], stage)
    rows = chain(head, rows)
    if spec.num_samples is not None:
        every = list(rows)
        rows = (every[index] for index in sample(len(every), spec.num_samples, seed))
    report = DatasetReport(spec.name, use)
    bad = BadRows()
    examples, columns = _convert(islice(rows, data.max_samples), format_, bad, report)
    if spec.trusted_markup:
        examples = [replace(example, trusted_markup=True) for example in examples]
    if columns and (absent := _absent_columns(spec, format_, columns, stage)):
        raise DataError(absent)
    return LoadedDataset(spec, examples, report, bad, [*spec.notices, *notices])


def _convert(
    rows: Iterable[Row], format_: Format | None, bad: BadRows, report: DatasetReport
) -> tuple[list[Example], dict[str, None]]:
    """(examples, all columns in the order in which they were met)."""
    examples: list[Example] = []
    columns: dict[str, None] = {}
    last: Any = ()
    for values, origin in rows:
        report.rows += 1
        if isinstance(values, Broken):
            fault: tuple[str, str, str | None, str | None] = (values.code, values.reason, None, values.got)
        else:
            if values.keys() != last:
                last = values.keys()
                columns.update(dict.fromkeys(values))
            try:
                if format_ is not None:
                    examples.append(format_.example(values, origin))
                continue
            except RowError as error:
                fault = (error.code, error.reason, error.field, error.got)
        bad.add(origin, *fault)
        report.drop(fault[1] if fault[2] is None else f'{fault[1]} (field "{fault[2]}")', origin)
    return examples, columns


def _make_format(
    spec: DatasetSpec, head: Sequence[Mapping[str, Any]], stage: str
) -> tuple[Format | None, Sequence[str]]:
    """The format of a dataset and what to say about it; None where the first rows are all broken."""
    if not head and spec.format is None:
        return None, ()
    if spec.format is not None:
        format_class = FORMATS.get(spec.format)
        if stage not in format_class.needed:
            raise DataError(_unfit_stage(spec, spec.format, format_class.needed, stage))
        format_ = format_class(stage, spec.columns, spec.tags)
        if missing := format_.unmapped():
            raise DataError([_unmapped(spec, format_, meaning, head, stage) for meaning in missing])
        return format_, ()
    if unfit := unreadable(head):
        raise DataError(Problem("E-DATA-018", f"the rows hold {unfit}", str(spec.path), fix=_TEXT_ONLY))
    layout = detect(head, stage)
    if layout is None:
        raise DataError(_undetected(spec, head, stage))
    others = [name for name in dict.fromkeys(chain(*head)) if name not in layout.columns.values()]
    told = f"{spec.name}: read as {layout}" + (f"; not read: {', '.join(others)}" if others else "")
    return FORMATS.get(layout.format)(stage, layout.columns), [told]


def _absent_columns(spec: DatasetSpec, format_: Format | None, columns: Iterable[str], stage: str) -> list[Problem]:
    """Columns that the format expects and that no row has: one problem each instead of one per row."""
    names = list(columns)
    problems = []
    for meaning, column in format_.expected() if format_ else ():
        if column in names:
            continue
        guess = detect([dict.fromkeys(names, "")], stage)
        fix = did_you_mean(column, names)
        if guess is not None and fix is None:
            fix = f"the entry in dataset_info.json may be meant like this: {snippet(spec.path.name, guess, stage)}"
        elif fix is None and (chat := next((name for name in MESSAGES if name in names), None)):
            kind = "openai" if chat == "messages" else "sharegpt"
            fix = f'the column "{chat}" holds chats: write "formatting": "{kind}" into the entry in dataset_info.json'
        what = f'no row has the column "{column}" ({meaning})'
        problems.append(Problem("E-DATA-011", what, str(spec.path), f"columns: {', '.join(names)}", fix))
    return problems


def _unmapped(
    spec: DatasetSpec, format_: Format, meaning: str, head: Sequence[Mapping[str, Any]], stage: str
) -> Problem:
    names = dict.fromkeys(name for row in head for name in row)
    guess = detect(head, stage)
    column = (guess.columns.get(meaning) if guess else None) or format_.default_columns.get(meaning, "<column>")
    return Problem(
        "E-DATA-011",
        f'the columns of dataset "{spec.name}" name no {meaning} (a columns block replaces all defaults)',
        where=str(spec.path),
        got=f"columns of the file: {', '.join(names)}",
        fix=f'add "{meaning}": "{column}" to its columns in dataset_info.json',
    )


def _unfit_stage(spec: DatasetSpec, name: str, needed: Mapping[str, Any], stage: str) -> Problem:
    what = f'rows of format "{name}" cannot be used for stage {stage}'
    fix = f"stage: {' or '.join(needed)}, or another dataset" if needed else None
    return Problem("E-DATA-027", what, where=str(spec.path), fix=fix)


def _undetected(spec: DatasetSpec, head: Sequence[Mapping[str, Any]], stage: str) -> Problem:
    names = list(dict.fromkeys(name for row in head for name in row))
    got = f"columns: {', '.join(names)}"
    for other in ("sft", "pt"):
        if other != stage and (layout := detect(head, other)):
            what = f"the rows look like {layout}, which stage {stage} cannot use"
            return Problem("E-DATA-027", what, str(spec.path), got, f"stage: {other}")
    fix = f"say what they mean in dataset_info.json: {snippet(spec.path.name, None, stage)}"
    return Problem("E-DATA-022", "the columns do not tell the format", str(spec.path), got, fix)


def _too_many(bad: int, allowed: int | None) -> Problem:
    return Problem(
        "E-DATA-023",
        f"{bad:,} rows cannot be used, max_bad_rows allows {allowed:,}",
        fix="mend the rows, or raise max_bad_rows",
    )
