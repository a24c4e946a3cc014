"""A block of rows to flat arrays: parse, convert, render, encode. What one process does at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tunesmith.core.errors import Problem
from tunesmith.core.types import Chat, Example, Origin, Placed, Preference, Text
from tunesmith.data.dataset import NO_LINE, PLAIN, PROMPT
from tunesmith.data.formats import Format
from tunesmith.data.lint.quick import ControlFinder
from tunesmith.data.notes import Notes
from tunesmith.data.rows import Broken, Row, RowError, parse
from tunesmith.data.sequences import View, split_answer, views
from tunesmith.data.settling import Settle, settled

if TYPE_CHECKING:
    from tunesmith.render import EncodedBatch, Renderer

__all__ = ["NOTHING_TRAINED", "BlockEncoder", "BlockResult", "Converted", "Fault", "convert"]

Ints = npt.NDArray[np.int64]
NOTHING_TRAINED = "nothing of it is trained"
ANSWER_UNTRAINED = "nothing of one of its answers is trained"


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a row cannot be used."""

    origin: Origin
    code: str
    reason: str
    field: str | None = None
    got: str | None = None
    fix: str | None = None
    media: Sequence[tuple[str, Problem]] = ()
    """All media of the row that cannot be used, by their names."""

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


def convert(
    rows: Sequence[Row], format_: Format | None, *, trusted_markup: bool = False, settle: Settle | None = None
) -> Converted:
    """`format_` None: no row could be parsed, so that there is none. `settle`: what becomes of media."""
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
                if settle is not None:
                    example = settled(example, settle)
                found.examples.append(replace(example, trusted_markup=True) if trusted_markup else example)
                found.positions.append(position)
        except RowError as error:
            told = error.code, error.reason, error.field, error.got, error.fix, error.media
            found.faults.append(Fault(origin, *told))
    return found


@dataclass(slots=True)
class BlockResult:
    """The samples of a block: their tokens, the `media` among these, and [N, 8] numbers as a store has them, with
    examples counted from 0 and files numbered as in `files`. `untrained`: rows without anything to learn, with the
    reason. `positions`: which row of the block each example is. `statistics`: what rendering did, by name."""

    rows: int
    columns: Mapping[str, None]
    faults: Sequence[Fault]
    untrained: Sequence[tuple[str, Origin]]
    positions: Ints
    files: Sequence[str]
    ids: npt.NDArray[np.int32]
    trained: npt.NDArray[np.bool_]
    weights: npt.NDArray[np.float32] | None
    table: Ints
    notes: Notes
    statistics: Mapping[str, int]
    media: Sequence[Placed] = ()


class BlockEncoder:
    """Called with the rows of a block. Raises QuickWayFault, after which everything is to be made anew."""

    def __init__(
        self,
        format_: Format | None,
        renderer: Renderer,
        *,
        trusted_markup: bool,
        weight: float,
        settle: Settle | None = None,
    ) -> None:
        self._format, self._renderer, self._settle = format_, renderer, settle
        self._trusted_markup, self._weight = trusted_markup, weight
        self._finder = ControlFinder(renderer.control)

    def __call__(self, rows: Sequence[Row]) -> BlockResult:
        if self._format is not None:
            self._format.notes = Notes()
        before = asdict(self._renderer.statistics)
        converted = convert(rows, self._format, trusted_markup=self._trusted_markup, settle=self._settle)
        notes = self._format.notes if self._format is not None else Notes()
        for example in converted.examples:
            if token := self._finder.find(example):
                notes.add(f'a text holds "{token}", which stays text (trusted_markup: true means it)', example.origin)
        examples = converted.examples
        shown = [views(example) for example in examples]
        batch = self._encode([view for group in shown for view in group])
        made = _judge(examples, shown, batch)
        faults = [*converted.faults, *(_fault(examples[number], told) for number, told in made.wrong.items())]
        lost = np.flatnonzero(~made.whole).tolist()
        ids, trained, weights = batch.ids, batch.trained, batch.weights
        if self._weight != 1:
            weights = (np.ones(len(ids), np.float32) if weights is None else weights) * np.float32(self._weight)
        if len(made.kept) < len(batch.lengths):
            taken = np.repeat(np.isin(np.arange(len(batch.lengths)), made.kept), batch.lengths)
            ids, trained = ids[taken], trained[taken]
            weights = None if weights is None else weights[taken]
        owner = made.owner[made.kept]
        files, places = _places([examples[number].origin for number in owner.tolist()])
        number = np.cumsum(made.whole) - 1  # rows without samples are no examples
        columns = [batch.lengths, made.counts, number[made.owner], made.kinds, _margins(examples)[made.owner]]
        length, count, example, kind, margin = (column[made.kept] for column in columns)
        table = np.column_stack([length, count, example, places, kind, margin])
        after = asdict(self._renderer.statistics)
        return BlockResult(
            rows=converted.rows,
            columns=converted.columns,
            faults=faults,
            untrained=[(_untrained(examples[n]), examples[n].origin) for n in lost if n not in made.wrong],
            positions=np.array(converted.positions, dtype=np.int64)[made.whole],
            files=files,
            ids=ids,
            trained=trained,
            weights=weights,
            table=table.astype(np.int64).reshape(-1, 8),
            notes=notes,
            statistics={name: count - before[name] for name, count in after.items() if count != before[name]},
            media=_placed(batch, made.kept, [str(examples[number].origin) for number in made.owner.tolist()]),
        )

    def _encode(self, shown: Sequence[View]) -> EncodedBatch:
        texts = [view.content for view in shown if isinstance(view.content, Text)]
        if texts:
            return self._renderer.encode_text_batch(texts)
        chats = [view.content for view in shown if isinstance(view.content, Chat)]
        if any(view.open for view in shown):
            return self._renderer.encode_batch(chats, open_reply=True)
        return self._renderer.encode_batch(chats)


class _Judged(NamedTuple):
    """What becomes of the N samples of E examples: owner [N] (which example), counts [N] (trained tokens), kinds [N];
    kept: the numbers of those that stay; whole [E]: whether the example stays; wrong: examples that are faulty."""

    owner: Ints
    counts: Ints
    kinds: Ints
    kept: Ints
    whole: npt.NDArray[np.bool_]
    wrong: Mapping[int, Problem]


def _judge(examples: Sequence[Example], shown: Sequence[Sequence[View]], batch: EncodedBatch) -> _Judged:
    """A chat stays with what of it can be learned from. Of pairs, feedback and prompts every sequence has to be there,
    as one sample, and trained unless it is a prompt: half a pair is none."""
    sizes = np.array([len(group) for group in shown], dtype=np.int64)
    example = np.repeat(np.arange(len(shown)), sizes)  # of each view
    kind = np.array([view.kind for group in shown for view in group], dtype=np.int64)
    before_token = np.concatenate([[0], np.cumsum(batch.trained, dtype=np.int64)])
    ends = np.cumsum(batch.lengths)
    counts = before_token[ends] - before_token[ends - batch.lengths]
    useful = (counts > 0) | (kind[batch.rows] == PROMPT)
    samples = np.bincount(batch.rows, minlength=len(kind))
    split = (samples > 1) & (kind != PLAIN)
    there = (np.bincount(batch.rows[useful], minlength=len(kind)) > 0) & ~split
    whole = np.bincount(example[~there], minlength=len(shown)) == 0
    wrong: dict[int, Problem] = {}
    for view, problem in batch.wrong.items():
        wrong.setdefault(int(example[view]), problem)
    for number in example[split].tolist():
        wrong.setdefault(number, split_answer(examples[number]))
    owner = example[batch.rows]
    return _Judged(owner, counts, kind[batch.rows], np.flatnonzero(useful & whole[owner]), whole, wrong)


def _margins(examples: Sequence[Example]) -> npt.NDArray[np.int32]:
    """[E] as a store has them."""
    each = [example.margin if isinstance(example, Preference) else None for example in examples]
    return np.array([np.nan if one is None else one for one in each], np.float32).view(np.int32)


def _placed(batch: EncodedBatch, kept: Ints, rows: Sequence[str]) -> list[Placed]:
    """The media of the samples that are kept, at their places among the tokens of these. `rows`: what each sample is
    of."""
    starts = np.cumsum(batch.lengths[kept]) - batch.lengths[kept]
    return [
        Placed(one.medium, start + one.start, start + one.end, rows[number])
        for number, start in (zip(kept.tolist(), starts.tolist(), strict=True) if batch.media else ())
        for one in batch.media.get(number, ())
    ]


def _untrained(example: Example) -> str:
    """Why an example without anything to learn is left out."""
    return ANSWER_UNTRAINED if isinstance(example, Preference) else NOTHING_TRAINED


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
