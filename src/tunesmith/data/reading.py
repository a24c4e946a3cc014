"""Rows of every dataset of a run to examples; whatever is wrong with any of them is told in one error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from tunesmith.core.collector import no_collection
from tunesmith.core.errors import DataError, MissingInputError, Problem, TunesmithError
from tunesmith.core.types import Example
from tunesmith.data.bad_rows import BadRows
from tunesmith.data.dataset_info import DatasetSpec, resolve
from tunesmith.data.formats import Format
from tunesmith.data.mapping import absent_columns, check_labels, make_format
from tunesmith.data.mix import sample
from tunesmith.data.notes import Notes
from tunesmith.data.report import DatasetReport
from tunesmith.data.rows import Broken, Row, RowError, parse
from tunesmith.data.sources.local import read_path

if TYPE_CHECKING:
    from tunesmith.config.data import DataConfig

__all__ = ["LoadedDataset", "load_datasets", "raise_for_bad_rows"]

Fault = tuple[str, str, str | None, str | None, str | None]
"""(code, reason, field, got, fix) of a row that cannot be used."""
HEAD = 20  # rows that detection looks at


@dataclass(slots=True)
class LoadedDataset:
    """The usable rows of one dataset as examples, and what became of the others."""

    spec: DatasetSpec
    examples: list[Example]
    report: DatasetReport
    bad: BadRows
    notices: list[str] = field(default_factory=list)
    tallies: Counter[str] = field(default_factory=Counter)


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
    if not problems:
        problems += _one_kind_of_label(loaded)
    raise_for_bad_rows(loaded, data, problems)
    return loaded


def _one_kind_of_label(loaded: Sequence[LoadedDataset]) -> list[Problem]:
    """Feedback must hold both kinds; together, because a dataset may hold one and another the other."""
    train = [one for one in loaded if one.report.use == "train"]
    tallies = sum((one.tallies for one in train), Counter())
    problem = check_labels(", ".join(one.spec.location for one in train), tallies)
    return [problem] if problem else []


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
    shown = [values for row in head if not isinstance(values := parse(row.values), Broken)]
    format_, notices = make_format(spec, shown, stage)
    rows = chain(head, rows)
    if spec.num_samples is not None:
        every = list(rows)
        rows = (every[index] for index in sample(len(every), spec.num_samples, seed))
    report = DatasetReport(spec.name, use)
    bad = BadRows()
    examples, columns = _convert(islice(rows, data.max_samples), format_, bad, report)
    if spec.trusted_markup:
        examples = [replace(example, trusted_markup=True) for example in examples]
    if columns and (absent := absent_columns(spec, format_, columns, shown, stage)):
        raise DataError(absent)
    notes = format_.notes if format_ is not None else Notes()
    return LoadedDataset(spec, examples, report, bad, [*spec.notices, *notices, *notes.lines()], notes.tallies)


def _convert(
    rows: Iterable[Row], format_: Format | None, bad: BadRows, report: DatasetReport
) -> tuple[list[Example], dict[str, None]]:
    """(examples, all columns in the order in which they were met)."""
    examples: list[Example] = []
    columns: dict[str, None] = {}
    last: Any = ()
    for unparsed, origin in rows:
        report.rows += 1
        values = parse(unparsed)
        if isinstance(values, Broken):
            fault: Fault = (values.code, values.reason, None, values.got, None)
        else:
            if values.keys() != last:
                last = values.keys()
                columns.update(dict.fromkeys(values))
            try:
                if format_ is not None:
                    examples.append(format_.example(values, origin))
                continue
            except RowError as error:
                fault = (error.code, error.reason, error.field, error.got, error.fix)
        bad.add(origin, *fault)
        report.drop(fault[1] if fault[2] is None else f'{fault[1]} (field "{fault[2]}")', origin)
    return examples, columns


def _too_many(bad: int, allowed: int | None) -> Problem:
    return Problem(
        "E-DATA-023",
        f"{bad:,} rows cannot be used, max_bad_rows allows {allowed:,}",
        fix="mend the rows, or raise max_bad_rows",
    )
