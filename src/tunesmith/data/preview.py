"""Rows as the model will see them: pieces of text with their tokens, and which of them are trained.

All rows are read, so that every bad one is told, one after the other; only those asked for are kept and rendered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tunesmith.core.errors import Problem
from tunesmith.core.types import Encoded, Example, Origin, Placed
from tunesmith.data.blocks import NOTHING_TRAINED
from tunesmith.data.dataset import TokenDataset
from tunesmith.data.length import fit_lengths
from tunesmith.data.prepared import PROMPT_TOO_LONG
from tunesmith.data.progress import Progress
from tunesmith.data.reading import open_walks
from tunesmith.data.reasons import message_ranges, reason_at
from tunesmith.data.report import DatasetReport
from tunesmith.data.sequences import View, encode_examples
from tunesmith.data.shown_media import ShownMedium, mark, show_media
from tunesmith.data.truncate import cut_point
from tunesmith.data.walk import Walk, fetch
from tunesmith.render.errors import RenderError

if TYPE_CHECKING:
    from tunesmith.config.data import DataConfig
    from tunesmith.render import Renderer

__all__ = ["Decode", "Piece", "Preview", "PreviewRow", "decoder", "preview", "preview_rows", "split_pieces"]

_TOO_LONG = f"dropped: {PROMPT_TOO_LONG}"
_OTHER_DROPPED = "dropped: the other answer of its pair is"
LONGEST_CHARACTER = 8  # tokens; four bytes are the longest character, some tokenizers use more than one token per byte

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True, slots=True)
class Piece:
    """The fewest tokens that make whole characters: mostly one; or all that stand for a medium. Trained if any of them
    is.

    `weight`: what it counts in the loss. `why`: why it is not trained, a key of `reasons.REASONS`.
    """

    text: str
    ids: tuple[int, ...]
    trained: bool
    weight: float = 1.0
    why: str | None = None


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """One training sample of row `number`: all of it, unless a split chat gave `samples` of them.

    `label` says which answer of a pair it is, and the like. `note` says what cutoff_len did to it; a dropped sample
    shows what it would have been. `lost` is what cutoff_len has left out.
    """

    number: int
    origin: Origin
    pieces: tuple[Piece, ...]
    tokens: int
    trained: int
    note: str | None = None
    dropped: bool = False
    sample: int = 1
    samples: int = 1
    label: str = ""
    lost: tuple[Piece, ...] = ()
    media: tuple[ShownMedium, ...] = ()


@dataclass(frozen=True, slots=True)
class Preview:
    """The rows that were asked for, and what is to say about the data they come from."""

    rows: list[PreviewRow]
    total: int
    """Usable rows of the data that `rows` come from."""
    datasets: list[DatasetReport]
    """Rows and dropped rows of every dataset; nothing else of it is counted."""
    notices: list[str]


def preview(
    data: DataConfig,
    renderer: Renderer,
    tokenizer: Any,
    *,
    stage: str,
    rows: int,
    start: int = 0,
    seed: int = 42,
    notify: Progress | None = None,
) -> Preview:
    """The samples of `rows` usable rows from row `start` (0-based, in the order of the files, before mixing and
    shuffling) of `dataset`, or of `eval_dataset` if there is no other.

    With packing the documents are shown: a block begins and ends anywhere in them, and tells nothing that they do not.
    `tokenizer`: of transformers, for decoding. Raises what `build_datasets` raises; of rows that cannot be rendered it
    knows only those shown.
    """
    asked = _Asked("train" if data.dataset else "eval", start, start + rows)
    walks = open_walks(data, stage=stage, seed=seed, visit=asked.visit, notify=notify)
    packed = stage == "pt" and data.packs(stage)
    found = list(
        preview_rows(
            renderer,
            decoder(tokenizer),
            asked.examples,
            None if packed else data.cutoff_len,
            data.on_too_long,
            skip=data.on_bad_row == "skip",
            first=start,
            weights=asked.weights,
        )
    )
    notices = [*(notice for one in walks for notice in one.notices), *renderer.notices, *renderer.statistics.lines()]
    if packed:
        notices.append(f"documents are shown; training packs them into blocks of {data.cutoff_len:,} tokens")
    return Preview(found, asked.total, [one.report for one in walks], notices)


@dataclass(slots=True)
class _Asked:
    """The examples number `start` to `stop` of the datasets for one use, picked while their files are read."""

    use: str
    start: int
    stop: int
    total: int = 0
    examples: list[Example] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def visit(self, walk: Walk) -> None:
        if walk.report.use != self.use:
            walk.count()
            return
        begin, end = max(self.start - self.total, 0), max(self.stop - self.total, 0)
        if walk.spec.num_samples is None:
            picked = [example for number, example in enumerate(walk) if begin <= number < end]
            self.total += walk.examples
        else:  # their order is known when all are read
            walk.count()
            order = walk.order.tolist()
            read = fetch([walk], set(order[begin:end]))
            picked = [read[number] for number in order[begin:end]]
            self.total += len(order)
        self.examples += picked
        self.weights += [walk.spec.weight] * len(picked)


def decoder(tokenizer: Any) -> Decode:
    """Ids to the text that they stand for, control tokens included. `tokenizer`: of transformers."""

    def decode(ids: Sequence[int]) -> str:
        text: str = tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    return decode


def preview_rows(
    renderer: Renderer,
    decode: Decode,
    examples: Sequence[Example],
    cutoff_len: int | None,
    on_too_long: str = "truncate",
    *,
    skip: bool = True,
    first: int = 0,
    weights: Sequence[float] | None = None,
) -> Iterator[PreviewRow]:
    """The samples of examples; the first of these is row `first`. An example that cannot be rendered is a dropped row
    with `skip`, and an error without. `weights`: of the datasets that the examples are of."""
    outcomes = encode_examples(renderer, examples)
    if not skip and (problems := [one for one in outcomes if isinstance(one, Problem)]):
        raise RenderError(problems, [index for index, one in enumerate(outcomes) if isinstance(one, Problem)])
    for number, (example, outcome) in enumerate(zip(examples, outcomes, strict=True), first):
        if isinstance(outcome, Problem):
            yield PreviewRow(number, example.origin, (), 0, 0, f"dropped: {outcome.what}", True)
            continue
        weight = 1 if weights is None else weights[number - first]
        samples = [(reading.view, _weighted(sample, weight)) for reading in outcome for sample in reading.samples]
        fits = [_fit(sample, view, cutoff_len, on_too_long) for view, sample in samples]
        if len(outcome) > 1 and any(fit.dropped for fit in fits):  # half a pair is none
            fits = [
                fit if fit.dropped else _Fit(len(one.ids), _OTHER_DROPPED)
                for fit, (_, one) in zip(fits, samples, strict=True)
            ]
        places = [(number, place, len(one.samples)) for one in outcome for place in range(1, len(one.samples) + 1)]
        for (view, sample), fit, place in zip(samples, fits, places, strict=True):
            yield _row(sample, view, fit, decode, place, renderer.media)


def _weighted(sample: Encoded, weight: float) -> Encoded:
    """The sample with the weight of its dataset."""
    if weight == 1:
        return sample
    own = [1.0] * len(sample.ids) if sample.weights is None else sample.weights
    return replace(sample, weights=[float(one) * weight for one in own])


class _Fit(NamedTuple):
    """How many tokens of a sample are trained with, and what is to say about it."""

    length: int
    note: str | None = None

    @property
    def dropped(self) -> bool:
        return self.note is not None and self.note.startswith("dropped")


def _fit(sample: Encoded, view: View, cutoff_len: int | None, on_too_long: str) -> _Fit:
    """A dropped sample is shown as a whole."""
    trained = np.asarray(sample.trained, dtype=np.bool_)
    whole = len(trained)
    if view.open and (cutoff_len is None or whole <= cutoff_len):
        return _Fit(whole, "a prompt: the model writes the answer, nothing of this is trained")
    if not view.open and not trained.any():
        return _Fit(whole, f"dropped: {NOTHING_TRAINED}")
    if cutoff_len is None or whole <= cutoff_len:
        return _Fit(whole)
    if on_too_long in ("drop", "error"):
        what = "dropped" if on_too_long == "drop" else "a run stops here"
        return _Fit(whole, f"{what}: longer than cutoff_len (on_too_long: {on_too_long})")
    if on_too_long == "split":
        parts, _ = fit_lengths(TokenDataset.from_encoded([sample]), cutoff_len, on_too_long)
        return _Fit(whole, f"split into {len(parts)} samples to fit cutoff_len" if len(parts) else _TOO_LONG)
    cut = cut_point(trained, cutoff_len)
    if not cut.length:
        return _Fit(whole, _TOO_LONG)
    note: str | None = None
    if cut.answer_cut:
        note = f"cut at cutoff_len: {whole - cut.length:,} tokens of the answer and its end are lost"
    elif cut.turns_dropped:
        note = f"shortened to cutoff_len: {cut.turns_dropped} later answers are left out"
    return _Fit(cut.length, note)


def _row(sample: Encoded, view: View, fit: _Fit, decode: Decode, place: tuple[int, int, int], media: Any) -> PreviewRow:
    """`place`: (number of the row, which of its samples, of how many). `media`: the renderer's."""
    kept, lost = _pieces(sample, view, fit.length, decode)
    number, which, samples = place
    counts = fit.length, int(np.count_nonzero(np.asarray(sample.trained, dtype=np.bool_)[: fit.length]))
    shown = show_media(sample.media, media, fit.length) if sample.media else ()
    told = fit.note, fit.dropped, which, samples, view.label, lost, shown
    return PreviewRow(number, sample.origin, kept, *counts, *told)


def _pieces(sample: Encoded, view: View, length: int, decode: Decode) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    """The pieces of the first `length` tokens, and those of the others, each with the reason if it is not trained."""
    parts = [
        split_pieces(
            sample.ids[part],
            sample.trained[part],
            decode,
            None if sample.weights is None else sample.weights[part],
            [replace(one, start=one.start - begin, end=one.end - begin) for one in sample.media if one.start >= begin],
        )
        for begin, part in ((0, slice(length)), (length, slice(length, None)))
    ]
    text = "".join(piece.text for pieces in parts for piece in pieces)
    ranges = message_ranges(text, view.content, view.label)
    kept = []
    start = 0
    for piece in parts[0]:
        end = start + len(piece.text)
        kept.append(piece if piece.trained or piece.why else replace(piece, why=reason_at(ranges, start, end)))
        start = end
    return tuple(kept), tuple(replace(piece, trained=False, why="cut") for piece in parts[1])


def split_pieces(
    ids: Sequence[int],
    trained: Sequence[bool],
    decode: Decode,
    weights: Sequence[float] | None = None,
    media: Sequence[Placed] = (),
) -> list[Piece]:
    """Tokens with the text that each adds. Tokens that hold parts of one character are kept together, and so are those
    of each of `media`, with a mark as their text.

    The text of a token is what decoding gains by it behind the piece before it: decoded alone, tokens of SentencePiece
    lose their blank, and those of byte-level BPE may be no characters at all.
    """
    pieces: list[Piece] = []
    context, begin = 0, 0
    held = {one.start: one for one in media}
    for end in range(1, len(ids) + 1):
        medium = held.get(begin)
        if medium is not None:
            if end < min(medium.end, len(ids)):
                continue
            text = mark(medium)
        else:
            text = decode(ids[context:end])[len(decode(ids[context:begin])) :]
            unfinished = text.endswith("\ufffd") and end - begin < LONGEST_CHARACTER
            if unfinished and end < len(ids) and end not in held:
                continue
        weight = 1.0 if weights is None else max(float(one) for one in weights[begin:end])
        own, is_trained = tuple(int(token) for token in ids[begin:end]), any(trained[begin:end])
        pieces.append(Piece(text, own, is_trained, weight, "media" if medium is not None and not is_trained else None))
        context, begin = begin, end
    return pieces
