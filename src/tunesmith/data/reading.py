"""Rows of every dataset of a run to examples, kept or one by one; whatever is wrong with any of them is told in one
error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
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
from tunesmith.data.dataset_info import DatasetSpec, resolve
from tunesmith.data.mapping import check_labels
from tunesmith.data.opened import open_dataset
from tunesmith.data.progress import Progress, shifted
from tunesmith.data.report import DatasetReport
from tunesmith.data.walk import Walk

if TYPE_CHECKING:
    from tunesmith.config.data import DataConfig
    from tunesmith.data.prepared import Prepared

__all__ = [
    "LoadedDataset",
    "load_datasets",
    "most_bad",
    "one_kind_of_label",
    "open_walks",
    "raise_for_bad_rows",
    "raise_together",
    "too_many_bad_rows",
]

_ELSEWHERE: dict[str, type[TunesmithError]] = {
    "E-DATA-020": MissingInputError,
    "E-DATA-040": UnavailableError,
    "E-DATA-041": MissingInputError,
    "E-DATA-042": MachineError,
    "E-DATA-110": MachineError,
    "E-MEDIA-041": MachineError,
}
"""Codes of problems that lie elsewhere than in the data."""
_USES = ("train", "eval")


@dataclass(slots=True)
class LoadedDataset:
    """The usable rows of one dataset as examples, and what became of the others."""

    spec: DatasetSpec
    examples: list[Example]
    report: DatasetReport
    bad: BadRows
    notices: list[str] = field(default_factory=list)
    tallies: Counter[str] = field(default_factory=Counter)


def open_walks(
    data: DataConfig,
    *,
    stage: str,
    seed: int,
    uses: Sequence[str] = _USES,
    visit: Callable[[Walk], None] | None = None,
    notify: Progress | None = None,
) -> list[Walk]:
    """All datasets that the config names for the uses `train` (`dataset`) and `eval` (`eval_dataset`), each gone
    through by `visit`, if there is one.

    Raises one error with everything that is wrong, as far as the datasets were read: MissingInputError if only files
    are missing, else DataError.
    """
    names = {"train": data.dataset, "eval": data.eval_dataset}
    wanted = [(use, name) for use in uses for name in names[use]]
    specs = resolve([name for _use, name in wanted], data.dataset_dir, offline=data.offline)
    walks: list[Walk] = []
    problems: list[Problem] = []
    for number, ((use, _name), spec) in enumerate(zip(wanted, specs, strict=True), 1):
        try:
            limits: dict[str, Any] = {"max_samples": data.max_samples, "seed": seed, "offline": data.offline}
            limits["media_dir"] = data.media_dir
            opened = open_dataset(spec, stage, streaming=data.streaming and use == "train", **limits)
            walk = Walk(opened, use)
            walk.notify = shifted(notify, sum(one.report.rows for one in walks), number == len(specs))
            if visit is not None:
                visit(walk)
            walks.append(walk)
        except TunesmithError as error:
            problems += error.problems
    if not problems:
        problems += one_kind_of_label(walks, specs)
    raise_for_bad_rows(walks, data, problems)
    return walks


def load_datasets(data: DataConfig, *, stage: str, seed: int, uses: Sequence[str] = _USES) -> list[LoadedDataset]:
    """The same with all examples in memory, in the order in which a run reads those of each dataset."""
    loaded: list[LoadedDataset] = []

    def load(walk: Walk) -> None:
        with no_collection():  # every row becomes objects that stay: reading is more than twice as fast
            examples = list(walk)
        if walk.spec.num_samples is not None:
            examples = [examples[number] for number in walk.order.tolist()]
        loaded.append(LoadedDataset(walk.spec, examples, walk.report, walk.bad, walk.notices, walk.tallies))

    open_walks(data, stage=stage, seed=seed, uses=uses, visit=load)
    return loaded


def one_kind_of_label(loaded: Sequence[Walk | Prepared], specs: Sequence[DatasetSpec]) -> list[Problem]:
    """Feedback must hold both kinds; together, because a dataset may hold one and another the other."""
    train = [(one, spec) for one, spec in zip(loaded, specs, strict=True) if one.report.use == "train"]
    tallies = sum((one.tallies for one, _spec in train), Counter())
    problem = check_labels(", ".join(spec.location for _one, spec in train), tallies)
    return [problem] if problem else []


def raise_for_bad_rows(loaded: Sequence[Walk | Prepared], data: DataConfig, others: Sequence[Problem] = ()) -> None:
    """One error with the `others` and with all bad rows, unless `on_bad_row`, for media `on_bad_media`, and
    `max_bad_rows` let these pass. A dataset of which nothing is left never passes."""
    problems = list(others)
    for media, policy in ((False, data.on_bad_row), (True, data.on_bad_media)):
        total = sum(one.bad.media if media else one.bad.count - one.bad.media for one in loaded)
        limit = most_bad(data, media=media)
        too_many = limit is not None and total > limit
        if too_many and policy == "skip":
            problems.append(too_many_bad_rows(total, limit))
        for one in loaded:
            if one.bad.count and (too_many or not one.examples):
                problems += one.bad.problems(one.report.rows, media=media)
    raise_together(problems)


def most_bad(data: DataConfig, *, media: bool) -> int | None:
    """How many rows may be bad, of those with bad media or of the others; None: any number."""
    return data.max_bad_rows if (data.on_bad_media if media else data.on_bad_row) == "skip" else 0


def raise_together(problems: Sequence[Problem]) -> None:
    """One error with all problems, if there are any; not a DataError if all of them lie elsewhere in one way."""
    kinds = {_ELSEWHERE.get(problem.code, DataError) for problem in problems}
    if problems:
        raise (kinds.pop() if len(kinds) == 1 else DataError)(problems)


def too_many_bad_rows(bad: int, allowed: int | None) -> Problem:
    """The problem of more bad rows than `max_bad_rows`."""
    return Problem(
        "E-DATA-023",
        f"{bad:,} rows cannot be used, max_bad_rows allows {allowed:,}",
        fix="mend the rows, or raise max_bad_rows",
    )
