"""A block of rows to flat arrays: parse, convert, render, encode. What one process does at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tunesmith.core.errors import Problem
from tunesmith.core.types import Chat, Example, Origin, Text
from tunesmith.data.dataset import NO_LINE
from tunesmith.data.formats import Format
from tunesmith.data.lint.quick import ControlFinder
from tunesmith.data.notes import Notes
from tunesmith.data.rows import Broken, Row, RowError, parse

if TYPE_CHECKING:
    from tunesmith.render import EncodedBatch, Renderer

__all__ = ["NOTHING_TRAINED", "BlockEncoder", "BlockResult", "Converted", "Fault", "convert"]

Ints = npt.NDArray[np.int64]
NOTHING_TRAINED = "nothing of it is trained"


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a row cannot be used."""

    origin: Origin
    code: str
    reason: str
    field: str | None = None
    got: str | None = None
    fix: str | None = None

    @property
    def told(self) -> str:
        """The reason, with the field if it is one field's."""
        return self.reason if self.field is None else f'{self.reason} (field "{self.field}")'


@dataclass(slots=True)
class Converted:
    """Rows as examples, and what became of the others. `positions`: which row each example is. `columns`: all that were
    met, in that order."""

    rows: int = 0
    examples: list[Example] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    columns: dict[str, None] = field(default_factory=dict)


def convert(rows: Sequence[Row], format_: Format | None, *, trusted_markup: bool = False) -> Converted:
    """`format_` None: no row could be parsed, so that there is none."""
    found = Converted(len(rows))
    last: Any = ()
    for position, (unparsed, origin) in enumerate(rows):
        values = parse(unparsed)
        if isinstance(values, Broken):
            found.faults.append(Fault(origin, values.code, values.reason, None, values.got))
            continue
        if values.keys() != last:
            last = values.keys()
            found.columns.update(dict.fromkeys(values))
        try:
            if format_ is not None:
                example = format_.example(values, origin)
                found.examples.append(replace(example, trusted_markup=True) if trusted_markup else example)
                found.positions.append(position)
        except RowError as error:
            found.faults.append(Fault(origin, error.code, error.reason, error.field, error.got, error.fix))
    return found


@dataclass(slots=True)
class BlockResult:
    """The samples of a block: their tokens, and [N, 6] numbers as a store has them, with examples counted from 0 and
    files numbered as in `files`. `positions`: which row of the block each example is. `statistics`: what rendering did,
    by name."""

    rows: int
    columns: Mapping[str, None]
    faults: Sequence[Fault]
    untrained: Sequence[Origin]
    positions: Ints
    files: Sequence[str]
    ids: npt.NDArray[np.int32]
    trained: npt.NDArray[np.bool_]
    weights: npt.NDArray[np.float32] | None
    table: Ints
    notes: Notes
    statistics: Mapping[str, int]


class BlockEncoder:
    """Called with the rows of a block. Raises QuickWayFault, after which everything is to be made anew."""

    def __init__(self, format_: Format | None, renderer: Renderer, *, trusted_markup: bool, weight: float) -> None:
        self._format, self._renderer = format_, renderer
        self._trusted_markup, self._weight = trusted_markup, weight
        self._finder = ControlFinder(renderer.control)

    def __call__(self, rows: Sequence[Row]) -> BlockResult:
        if self._format is not None:
            self._format.notes = Notes()
        before = asdict(self._renderer.statistics)
        converted = convert(rows, self._format, trusted_markup=self._trusted_markup)
        notes = self._format.notes if self._format is not None else Notes()
        for example in converted.examples:
            if token := self._finder.find(example):
                notes.add(f'a text holds "{token}", which stays text (trusted_markup: true means it)', example.origin)
        batch = self._encode(converted.examples)
        faults = [*converted.faults, *(_fault(converted.examples[row], told) for row, told in batch.wrong.items())]
        before_token = np.concatenate([[0], np.cumsum(batch.trained, dtype=np.int64)])
        ends = np.cumsum(batch.lengths)
        counts = before_token[ends] - before_token[ends - batch.lengths]
        learned = np.flatnonzero(counts)
        has_samples = np.zeros(len(converted.examples), np.bool_)
        has_samples[batch.rows[learned]] = True
        dropped = [row for row in np.flatnonzero(~has_samples).tolist() if row not in batch.wrong]
        ids, trained, weights = batch.ids, batch.trained, batch.weights
        if self._weight != 1:
            weights = (np.ones(len(ids), np.float32) if weights is None else weights) * np.float32(self._weight)
        if len(learned) < len(batch.lengths):
            taken = np.repeat(np.isin(np.arange(len(batch.lengths)), learned), batch.lengths)
            ids, trained = ids[taken], trained[taken]
            weights = None if weights is None else weights[taken]
        files, places = _places([converted.examples[row].origin for row in batch.rows[learned].tolist()])
        number = np.cumsum(has_samples) - 1  # rows without samples are no examples
        table = np.column_stack([batch.lengths[learned], counts[learned], number[batch.rows[learned]], places])
        after = asdict(self._renderer.statistics)
        return BlockResult(
            rows=converted.rows,
            columns=converted.columns,
            faults=faults,
            untrained=[converted.examples[row].origin for row in dropped],
            positions=np.array(converted.positions, dtype=np.int64)[has_samples],
            files=files,
            ids=ids,
            trained=trained,
            weights=weights,
            table=table.astype(np.int64).reshape(-1, 6),
            notes=notes,
            statistics={name: count - before[name] for name, count in after.items() if count != before[name]},
        )

    def _encode(self, examples: Sequence[Example]) -> EncodedBatch:
        texts = [example for example in examples if isinstance(example, Text)]
        if texts:
            return self._renderer.encode_text_batch(texts)
        return self._renderer.encode_batch([example for example in examples if isinstance(example, Chat)])


def _fault(example: Example, problem: Problem) -> Fault:
    return Fault(example.origin, problem.code, problem.what, None, problem.got, problem.fix)


def _places(origins: Sequence[Origin]) -> tuple[list[str], Ints]:
    """Names of files, and [N, 3]: which of them, row, line."""
    files: dict[str, int] = {}
    places = [
        (files.setdefault(origin.file, len(files)), origin.row, NO_LINE if origin.line is None else origin.line)
        for origin in origins
    ]
    return list(files), np.array(places, dtype=np.int64).reshape(-1, 3)
