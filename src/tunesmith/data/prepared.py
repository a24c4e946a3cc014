"""The datasets of a run with their samples: from the cache, or made now; cut to length, and joined."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tunesmith.core.errors import PreemptedError, Problem, StorageError, TunesmithError
from tunesmith.data.bad_rows import BadRows
from tunesmith.data.cache import cached, code_digest, kept_in
from tunesmith.data.dataset import TokenDataset, is_range
from tunesmith.data.dataset_info import resolve
from tunesmith.data.length import LengthOutcome, fit_lengths, length_bars
from tunesmith.data.media_table import settled_files
from tunesmith.data.mix import distinct
from tunesmith.data.opened import DataFile, open_dataset
from tunesmith.data.prepare import ORDER, STATE, Progress, prepare
from tunesmith.data.reading import one_kind_of_label, raise_for_bad_rows
from tunesmith.data.report import PLACES, DatasetReport
from tunesmith.data.store import open_samples

if TYPE_CHECKING:
    from tunesmith.config.data import DataConfig
    from tunesmith.data.spec import DatasetSpec
    from tunesmith.render import Renderer

__all__ = ["PROMPT_TOO_LONG", "Pool", "Prepared", "open_prepared", "prepare_datasets"]

Ints = npt.NDArray[np.int64]
PROMPT_TOO_LONG = "the prompt alone is longer than cutoff_len"
TOO_LONG = "longer than cutoff_len"


@dataclass(slots=True)
class Prepared:
    """The samples of one dataset, uncut, in the order of its rows; `example` [N]: which example each is of."""

    tokens: TokenDataset
    example: Ints
    examples: int
    report: DatasetReport
    bad: BadRows
    notices: list[str] = field(default_factory=list)
    tallies: Counter[str] = field(default_factory=Counter)
    statistics: Counter[str] = field(default_factory=Counter)
    encoder: str = ""
    folder: Path = Path()
    """Where the files of its samples are."""
    order: Ints | None = None
    """With num_samples: which examples are read, in which order, repeats included; else all in order."""
    registered: bool = False
    """`name` is one of dataset_info.json, not a path."""
    files: list[DataFile] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.report.name

    def count(self) -> None:
        """Let the report say what is left."""
        self.report.kept, self.report.samples = len(distinct(self.example)), len(self.example)
        self.report.tokens, self.report.trained = self.tokens.num_tokens, self.tokens.num_trained

    def fit(self, cutoff_len: int, policy: str) -> LengthOutcome:
        """Cut what is longer than `cutoff_len`; the report tells what was lost."""
        self.tokens, outcome = fit_lengths(self.tokens, cutoff_len, policy)
        before, self.example = self.example, self.example[outcome.source]
        report, origin = self.report, outcome.before.origin
        for numbers, cuts in (
            (outcome.shortened, report.turns_dropped),
            (outcome.answers_cut, report.answers_cut),
            (outcome.split, report.split),
        ):
            cuts.samples, cuts.places = len(numbers), [str(origin(int(number))) for number in numbers[:PLACES]]
        report.turns_dropped.turns = outcome.turns_left_out
        for numbers, reason in ((outcome.lost, PROMPT_TOO_LONG), (outcome.dropped, TOO_LONG)):
            gone = numbers[~np.isin(before[numbers], self.example)]  # rows of which nothing is left
            for number in gone[np.unique(before[gone], return_index=True)[1]]:
                report.drop(reason, origin(int(number)))
        if outcome.too_long:
            report.histogram = length_bars(outcome.before.lengths)
        return outcome


@dataclass(slots=True)
class Pool:
    """The samples of several datasets, by example: those of example i are the numbers first[i] to first[i + 1].
    `orders`: the examples of each dataset as they are read."""

    tokens: TokenDataset
    first: Ints
    orders: list[Ints]

    @classmethod
    def of(cls, datasets: Sequence[Prepared]) -> Pool:
        begins = np.cumsum([0, *(one.examples for one in datasets)])
        examples = [begin + one.example for begin, one in zip(begins, datasets, strict=False)]
        tokens = TokenDataset.concatenate([one.tokens for one in datasets])
        first = np.searchsorted(np.concatenate(examples), np.arange(begins[-1] + 1))
        orders = [
            begin + (np.arange(one.examples) if one.order is None else one.order)
            for begin, one in zip(begins, datasets, strict=False)
        ]
        return cls(tokens, first, orders)

    def take(self, examples: Ints) -> TokenDataset:
        """All samples of these examples, in this order."""
        if len(examples) == len(self.first) - 1 and is_range(examples):
            return self.tokens
        counts = np.diff(self.first)[examples]
        before: Ints = np.cumsum(counts) - counts
        samples = np.arange(counts.sum(), dtype=np.int64) + np.repeat(self.first[examples] - before, counts)
        return self.tokens.take(samples)


def open_prepared(folder: Path, name: str, use: str) -> Prepared:
    """What `prepare` has made; the arrays are mapped from the files."""
    state: dict[str, Any] = json.loads((folder / STATE).read_text("utf-8"))
    tokens, example = open_samples(folder, state["files"])
    report = DatasetReport(name, use, state["rows"], Counter(state["dropped"]), state["dropped_places"])
    return Prepared(
        tokens,
        example,
        state["examples"],
        report,
        BadRows.from_list(state["bad"]),
        state["notices"],
        Counter(state["tallies"]),
        Counter(state["statistics"]),
        state["encoder"],
        folder,
        np.load(folder / ORDER, allow_pickle=False) if (folder / ORDER).exists() else None,
    )


def prepare_datasets(
    data: DataConfig,
    renderer: Renderer,
    *,
    stage: str,
    seed: int,
    resumes: bool = False,
    on_progress: Progress | None = None,
) -> list[Prepared]:
    """All datasets that the config names, for training and for evaluation: from the cache, or made now and kept there.
    `resumes`: for a run that goes on.

    Raises one error with everything that is wrong with their files and rows: MissingInputError if only files are
    missing. A full disk (StorageError), and what `on_progress` raises, end it at once; what was done is kept.
    """
    wanted = [("train", item) for item in data.dataset] + [("eval", item) for item in data.eval_dataset]
    specs = resolve([item for _use, item in wanted], data.dataset_dir, offline=data.offline)
    found: list[Prepared] = []
    problems: list[Problem] = []
    for number, ((use, _item), spec) in enumerate(zip(wanted, specs, strict=True)):
        done = sum(one.report.rows for one in found)
        last = number == len(specs) - 1
        try:
            how = {"stage": stage, "seed": seed, "resumes": resumes, "on_progress": _shifted(on_progress, done, last)}
            found.append(_prepared(data, spec, use, number, renderer, **how))
        except (PreemptedError, StorageError):  # not of this dataset
            raise
        except TunesmithError as error:
            problems += error.problems
    if not problems:
        problems += one_kind_of_label(found, specs)
    raise_for_bad_rows(found, data, problems)
    return found


def _prepared(
    data: DataConfig,
    spec: DatasetSpec,
    use: str,
    number: int,
    renderer: Renderer,
    *,
    stage: str,
    seed: int,
    resumes: bool,
    on_progress: Progress | None,
) -> Prepared:
    limits: dict[str, Any] = {"max_samples": data.max_samples, "seed": seed, "offline": data.offline}
    opened = open_dataset(spec, stage, media_dir=data.media_dir, **limits)
    parts = {**opened.key(), "renderer": renderer.fingerprint(), "code": code_digest()}

    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        workers = data.preprocessing_num_workers
        block = data.preprocessing_batch_size
        prepare(opened, renderer, folder, block=block, workers=workers, on_progress=on_progress)

    def have(rebuild: bool) -> Path:
        if data.tokenized_path is None:
            return cached(parts, spec.name, make, rebuild=rebuild)
        place = Path(data.tokenized_path).expanduser() / f"{use}-{number}-{_slug(spec.name)}"
        return kept_in(place, parts, spec.name, make, rebuild=rebuild)

    found = open_prepared(have(data.overwrite_cache), spec.name, use)
    if not made and _other_media(found, data, resumes=resumes):
        found = open_prepared(have(True), spec.name, use)
    found.registered = spec.registered
    found.files = [DataFile(spec.name, use, file, digest) for file, digest in parts["files"]]
    return found


def _other_media(found: Prepared, data: DataConfig, *, resumes: bool) -> bool:
    """Whether media are no more what they were when the samples were made, so that the rows say which are wrong. A run
    that goes on and leaves bad media out keeps its samples: those that turned bad are left out when they are read."""
    if data.on_bad_media == "skip":
        return not resumes and not settled_files(found.folder)
    return found.bad.media > 0 or not settled_files(found.folder)


def _shifted(notify: Progress | None, before: int, last: bool) -> Progress | None:
    """Progress of one dataset as progress of all: `before` rows are done; the total is known in the last one."""
    if notify is None:
        return None
    return lambda done, total: notify(before + done, before + total if last and total is not None else None)


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", Path(name).name)[:60]
