"""Rows of every dataset of a run to examples; whatever is wrong with any of them is told in one error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunesmith.core.collector import no_collection
from tunesmith.core.errors import (
    DataError,
    MachineError,
    MissingInputError,
    Problem,
    TunesmithError,
    UnavailableError,
)
from tunesmith.core.types import Example
from tunesmith.data.bad_rows import BadRows
from tunesmith.data.blocks import convert
from tunesmith.data.dataset_info import DatasetSpec, resolve
from tunesmith.data.mapping import check_labels
from tunesmith.data.notes import Notes
from tunesmith.data.opened import open_dataset
from tunesmith.data.report import DatasetReport

if TYPE_CHECKING:
    from tunesmith.config.data import DataConfig
    from tunesmith.data.prepared import Prepared

__all__ = [
    "LoadedDataset",
    "load_datasets",
    "one_kind_of_label",
    "raise_for_bad_rows",
    "raise_together",
    "too_many_bad_rows",
]

_ELSEWHERE: dict[str, type[TunesmithError]] = {
    "E-DATA-020": MissingInputError,
    "E-DATA-040": UnavailableError,
    "E-DATA-041": MissingInputError,
    "E-DATA-042": MachineError,
}
"""Codes of problems that lie elsewhere than in the data."""


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
    specs = resolve([name for _use, name in wanted], data.dataset_dir, offline=data.offline)
    loaded: list[LoadedDataset] = []
    problems: list[Problem] = []
    for (use, _name), spec in zip(wanted, specs, strict=True):
        try:
            with no_collection():  # every row becomes objects that stay: reading is more than twice as fast
                loaded.append(_read(spec, data, stage, use, seed))
        except TunesmithError as error:
            problems += error.problems
    if not problems:
        problems += one_kind_of_label(loaded, specs)
    raise_for_bad_rows(loaded, data, problems)
    return loaded


def one_kind_of_label(loaded: Sequence[LoadedDataset | Prepared], specs: Sequence[DatasetSpec]) -> list[Problem]:
    """Feedback must hold both kinds; together, because a dataset may hold one and another the other."""
    train = [(one, spec) for one, spec in zip(loaded, specs, strict=True) if one.report.use == "train"]
    tallies = sum((one.tallies for one, _spec in train), Counter())
    problem = check_labels(", ".join(spec.location for _one, spec in train), tallies)
    return [problem] if problem else []


def raise_for_bad_rows(
    loaded: Sequence[LoadedDataset | Prepared], data: DataConfig, others: Sequence[Problem] = ()
) -> None:
    """One error with the `others` and with all bad rows, unless `on_bad_row` and `max_bad_rows` let these pass.
    A dataset of which nothing is left never passes."""
    problems = list(others)
    total = sum(one.bad.count for one in loaded)
    limit = data.max_bad_rows if data.on_bad_row == "skip" else 0
    too_many = limit is not None and total > limit
    if too_many and data.on_bad_row == "skip":
        problems.append(too_many_bad_rows(total, limit))
    for one in loaded:
        if one.bad.count and (too_many or not one.examples):
            problems += one.bad.problems(one.report.rows)
    raise_together(problems)


def raise_together(problems: Sequence[Problem]) -> None:
    """One error with all problems, if there are any; not a DataError if all of them lie elsewhere in one way."""
    kinds = {_ELSEWHERE.get(problem.code, DataError) for problem in problems}
    if problems:
        raise (kinds.pop() if len(kinds) == 1 else DataError)(problems)


def _read(spec: DatasetSpec, data: DataConfig, stage: str, use: str, seed: int) -> LoadedDataset:
    limits: dict[str, Any] = {"max_samples": data.max_samples, "seed": seed, "offline": data.offline}
    opened = open_dataset(spec, stage, streaming=data.streaming and use == "train", **limits)
    rows = list(opened.rows())
    if (chosen := opened.chosen) is not None:
        read = dict(zip(sorted(set(chosen.tolist())), rows, strict=True))
        rows = [read[number] for number in chosen.tolist()]
    found = convert(rows, opened.format, trusted_markup=spec.trusted_markup)
    opened.raise_for_absent(found.columns)
    report, bad = DatasetReport(spec.name, use, found.rows), BadRows()
    for fault in found.faults:
        bad.add(fault.origin, fault.code, fault.reason, fault.field, fault.got, fault.fix)
        report.drop(fault.told, fault.origin)
    notes = opened.format.notes if opened.format is not None else Notes()
    notices = [*opened.notices, *notes.lines()]
    return LoadedDataset(spec, found.examples, report, bad, notices, notes.tallies)


def too_many_bad_rows(bad: int, allowed: int | None) -> Problem:
    """The problem of more bad rows than `max_bad_rows`."""
    return Problem(
        "E-DATA-023",
        f"{bad:,} rows cannot be used, max_bad_rows allows {allowed:,}",
        fix="mend the rows, or raise max_bad_rows",
    )
