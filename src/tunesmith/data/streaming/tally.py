"""What a stream has read so far, for the report and for what stops a run. Counted in the first epoch: later ones read
the same rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import DataError, Problem
from tunesmith.data.length import LOST_AT_MOST, LengthOutcome, raise_for_lost_rows
from tunesmith.data.mapping import check_labels
from tunesmith.data.opened import OpenDataset
from tunesmith.data.reading import most_bad, too_many_bad_rows
from tunesmith.data.report import DataReport, DatasetReport
from tunesmith.data.streaming.encode import EncodedWindow
from tunesmith.render.turns import Statistics

if TYPE_CHECKING:
    from tunesmith.config.data import DataConfig

__all__ = ["StreamTally"]

_COUNTS = ("rows", "kept", "samples", "tokens", "trained")


class StreamTally:
    """`add` every window, in order; `state` and `load` take what was counted through a resume."""

    def __init__(self, datasets: Sequence[OpenDataset], data: DataConfig) -> None:
        self._datasets, self._data = datasets, data
        self._reset()

    def _reset(self) -> None:
        self.reports = [DatasetReport(one.spec.name, "train") for one in self._datasets]
        self.windows = 0
        self.epoch = 0
        self._bad = [0, 0]  # with bad text, with bad media
        self._lost = [0, 0]  # rows of which nothing that is trained fits, rows in all
        self._columns: list[dict[str, None]] = [{} for _ in self._datasets]
        self._notices: dict[str, None] = {}
        self._statistics: Counter[str] = Counter()
        self._encoders: dict[str, None] = {}
        self._labels: Counter[str] = Counter()
        self._lengths: list[dict[str, Any]] = []

    def add(self, encoded: EncodedWindow, outcomes: Sequence[LengthOutcome]) -> None:
        """Raises DataError for bad rows, for rows that cutoff_len leaves nothing of, and at the end of the first epoch
        for a dataset of which nothing is left."""
        self.epoch = encoded.window.epoch
        if self.epoch:
            self._raise_for_nothing_left()
            return
        for number, one in enumerate(encoded.prepared):
            one.count()
            self._columns[number].update(encoded.columns[number])
            self._statistics.update(one.statistics)
            self._notices.update(dict.fromkeys(one.notices))
            self._encoders[one.encoder] = None
            self._labels.update(one.tallies)
            self.reports[number].add(one.report)
        self.windows += 1
        self._raise_for_bad_rows(encoded)
        self._raise_for_lost_rows(outcomes)
        if self.windows == 1:
            self._lengths = [outcome.to_dict() for outcome in outcomes]
            self._notice_absent_columns()

    def _raise_for_bad_rows(self, encoded: EncodedWindow) -> None:
        problems: list[Problem] = []
        for media in (False, True):
            bad = sum(one.bad.media if media else one.bad.count - one.bad.media for one in encoded.prepared)
            self._bad[media] += bad
            limit = most_bad(self._data, media=media)
            if not bad or limit is None or self._bad[media] <= limit:
                continue
            if limit:
                problems.append(too_many_bad_rows(self._bad[media], limit))
            problems += [one for own in encoded.prepared for one in own.bad.problems(own.report.rows, media=media)]
        if problems:
            raise DataError(problems)

    def _raise_for_lost_rows(self, outcomes: Sequence[LengthOutcome]) -> None:
        counts = [outcome.rows() for outcome in outcomes]
        for place in (0, 1):
            self._lost[place] += sum(count[place] for count in counts)
        if self._lost[0] > self._lost[1] * LOST_AT_MOST:  # then it is so in this window, too
            raise_for_lost_rows(outcomes)

    def _notice_absent_columns(self) -> None:
        """A column that no row of the first window has may come later; but mostly its name is wrong."""
        for opened, columns in zip(self._datasets, self._columns, strict=True):
            try:
                opened.raise_for_absent(columns)
            except DataError as error:
                told = (
                    f"{problem.what} so far{f' ({problem.fix})' if problem.fix else ''}" for problem in error.problems
                )
                self._notices.update(dict.fromkeys(f"{opened.spec.name}: {one}" for one in told))

    def _raise_for_nothing_left(self) -> None:
        for opened, columns in zip(self._datasets, self._columns, strict=True):
            opened.raise_for_absent(columns)
        problems = [
            Problem(
                "E-DATA-019",
                f"no sample is left of {one.name} after all of it was read",
                got="; ".join(one.dropped) or None,
            )
            for one in self.reports
            if one.rows and not one.samples
        ]
        if problem := check_labels(", ".join(one.spec.location for one in self._datasets), self._labels):
            problems.append(problem)
        if problems:
            raise DataError(problems)

    def report(self) -> DataReport:
        """What was read so far, for people."""
        report = DataReport(list(self.reports))
        opened = [notice for one in self._datasets for notice in one.notices]
        report.notices = [*opened, *self._notices, *Statistics(**self._statistics).lines()]
        report.encoders, report.lengths = list(self._encoders), list(self._lengths)
        return report

    def summary(self) -> str:
        """The same in a line."""
        rows, samples, tokens = (
            sum(getattr(one, name) for one in self.reports) for name in ("rows", "samples", "tokens")
        )
        dropped = sum(sum(one.dropped.values()) for one in self.reports)
        epochs = f"the first of {self.epoch + 1:,} epochs" if self.epoch else "its first epoch"
        read = f"the stream has read {rows:,} rows in {epochs}"
        return f"{read}: {samples:,} samples, {tokens:,} tokens, {dropped:,} rows dropped (see data_report.json)"

    def state(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "windows": self.windows,
            "bad": list(self._bad),
            "lost": list(self._lost),
            "labels": dict(self._labels),
            "columns": [list(columns) for columns in self._columns],
            "datasets": [
                {**{name: getattr(one, name) for name in _COUNTS}, "dropped": dict(one.dropped)} for one in self.reports
            ],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self._reset()
        self.windows, self._lost = state["windows"], list(state["lost"])
        bad = state["bad"]
        self._bad = list(bad) if isinstance(bad, list) else [bad, 0]  # a number: from before there were media
        self._columns = [dict.fromkeys(columns) for columns in state["columns"]]
        self._labels = Counter(state["labels"])
        for one, saved in zip(self.reports, state["datasets"], strict=True):
            for name in _COUNTS:
                setattr(one, name, saved[name])
            one.dropped = Counter(saved["dropped"])
