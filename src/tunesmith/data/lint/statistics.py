"""What the data is like, in numbers: lengths, how much is trained, scripts, how answers end. No judgement."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.data.lint.columns import Columns
from tunesmith.data.lint.media import MediaStatistics
from tunesmith.data.lint.scripts import SCRIPTS

__all__ = ["DatasetStatistics", "Lengths", "describe", "histogram"]

BINS = 24
_RARE_SCRIPT = 0.001


@dataclass(frozen=True, slots=True)
class Lengths:
    """Of the rows' longest sequences; `unit` is tokens, or characters where there is no tokenizer. Of a histogram's
    bin the lower edge belongs to it."""

    unit: str
    least: int = 0
    median: int = 0
    p95: int = 0
    most: int = 0
    edges: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()


@dataclass(slots=True)
class DatasetStatistics:
    """One dataset. `rows` as the file has them, `usable` of them were looked at; lengths before anything is cut."""

    name: str
    use: str
    rows: int
    usable: int
    tokens: int
    trained: int
    lengths: Lengths
    longer_than_cutoff: int = 0
    scripts: dict[str, float] = field(default_factory=dict)
    """Share of the letters in each script, the commonest first."""
    unfinished: float | None = None
    """Share of the answers that end without a final sign; None where there are no answers."""
    media: dict[str, MediaStatistics] = field(default_factory=dict)
    """By kind; empty where there are none."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def describe(columns: Columns, number: int, use: str, rows: int, cutoff_len: int | None) -> DatasetStatistics:
    """The numbers of one dataset."""
    mine = columns.dataset == number
    values = columns.tokens if columns.has_tokens else columns.prompt_length + np.maximum(columns.answer_length, 0)
    lengths = values[mine & (values > 0)]  # a row that cannot be rendered has no tokens
    found = DatasetStatistics(
        columns.names[number],
        use,
        rows,
        int(mine.sum()),
        int(columns.all_tokens[mine].sum()),
        int(columns.trained[mine].sum()),
        _lengths(lengths, "tokens" if columns.has_tokens else "characters"),
        scripts=_shares(columns.scripts[mine].sum(axis=0)),
    )
    if columns.has_tokens and cutoff_len is not None:
        found.longer_than_cutoff = int((lengths > cutoff_len).sum())
    answered = columns.finished[mine]
    if (answered >= 0).any():
        found.unfinished = float((answered == 0).sum() / (answered >= 0).sum())
    return found


def _lengths(values: npt.NDArray[np.int64], unit: str) -> Lengths:
    if not len(values):
        return Lengths(unit)
    low, median, p95, high = (int(np.percentile(values, at)) for at in (0, 50, 95, 100))
    edges, counts = histogram(values)
    return Lengths(unit, low, median, p95, high, edges, counts)


def histogram(values: npt.NDArray[np.int64], bins: int = BINS) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(edges [K + 1], counts [K]) over equally wide bins of whole numbers, from 0 to beyond the largest value."""
    if not len(values):
        return (), ()
    width = int(values.max()) // bins + 1
    counts = np.bincount(values // width)
    edges = width * np.arange(len(counts) + 1)
    return tuple(edges.tolist()), tuple(counts.tolist())


def _shares(letters: npt.NDArray[np.int64]) -> dict[str, float]:
    total = int(letters.sum())
    order = np.argsort(-letters, kind="stable")
    return {SCRIPTS[i]: float(letters[i] / total) for i in order if total and letters[i] >= _RARE_SCRIPT * total}
