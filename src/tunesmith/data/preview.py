"""Rows as the model will see them: pieces of text with their tokens, and which of them are trained.

All rows are read, so that every bad one is told; only those asked for are rendered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.core.errors import Problem
from tunesmith.core.types import Encoded, Example, Origin
from tunesmith.data.reading import load_datasets
from tunesmith.data.rendering import NOTHING_TRAINED, PROMPT_TOO_LONG, render_examples
from tunesmith.data.report import DatasetReport
from tunesmith.data.truncate import cut_point
from tunesmith.render.errors import RenderError

if TYPE_CHECKING:
    from tunesmith.config.data import DataConfig
    from tunesmith.render import Renderer

__all__ = ["Piece", "Preview", "PreviewRow", "preview", "split_pieces"]

LONGEST_CHARACTER = 8  # tokens; four bytes are the longest character, some tokenizers use more than one token per byte

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True, slots=True)
class Piece:
    """The fewest tokens that make whole characters: mostly one. Trained if any of them is."""

    text: str
    ids: tuple[int, ...]
    trained: bool


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """One training sample of row `number`: all of it, unless a split chat gave `samples` of them.

    `note` says what cutoff_len did to it; a dropped sample shows what it would have been.
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
    data: DataConfig, renderer: Renderer, tokenizer: Any, *, stage: str, rows: int, start: int = 0, seed: int = 42
) -> Preview:
    """The samples of `rows` usable rows from row `start` (0-based, in the order of the files, before mixing and
    shuffling) of `dataset`, or of `eval_dataset` if there is no other.

    With packing the documents are shown: a block begins and ends anywhere in them, and tells nothing that they do not.
    `tokenizer`: of transformers, for decoding. Raises what `build_datasets` raises; of rows that cannot be rendered it
    knows only those shown.
    """

    def decode(ids: Sequence[int]) -> str:
        text: str = tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    loaded = load_datasets(data, stage=stage, seed=seed)
    use = "train" if data.dataset else "eval"
    shown = [one for one in loaded if one.report.use == use]
    examples = list(islice(chain.from_iterable(one.examples for one in shown), start, start + rows))
    packed = stage == "pt" and data.packing is not False
    cutoff_len = None if packed else data.cutoff_len
    found: list[PreviewRow] = []
    for number, (example, samples) in enumerate(_rendered(renderer, examples, data.on_bad_row == "skip"), start):
        if isinstance(samples, Problem):
            found.append(PreviewRow(number, example.origin, (), 0, 0, f"dropped: {samples.what}", True))
            continue
        for place, sample in enumerate(samples, 1):
            found.append(_row(sample, cutoff_len, decode, (number, place, len(samples))))
    notices = [*(notice for one in loaded for notice in one.notices), *renderer.notices, *renderer.statistics.lines()]
    if packed:
        notices.append(f"documents are shown; training packs them into blocks of {data.cutoff_len:,} tokens")
    return Preview(found, sum(len(one.examples) for one in shown), [one.report for one in loaded], notices)


def _rendered(
    renderer: Renderer, examples: Sequence[Example], skip: bool
) -> Iterator[tuple[Example, list[Encoded] | Problem]]:
    """Each example with its samples; with `skip`, with what is wrong where it cannot be rendered."""
    wrong: dict[int, Problem] = {}
    try:
        samples = iter(render_examples(renderer, examples) if examples else [])
    except RenderError as error:
        if not (skip and error.failed):
            raise
        wrong = dict(zip(error.failed, error.problems, strict=True))
        samples = iter(render_examples(renderer, [one for i, one in enumerate(examples) if i not in wrong]))
    for index, example in enumerate(examples):
        yield example, wrong[index] if index in wrong else next(samples)


def _row(sample: Encoded, cutoff_len: int | None, decode: Decode, place: tuple[int, int, int]) -> PreviewRow:
    """`place`: (number of the row, which of its samples, of how many)."""
    trained = np.asarray(sample.trained, dtype=np.bool_)
    cut = cut_point(trained, len(trained) if cutoff_len is None else cutoff_len)
    note = None
    if not trained.any():
        note = f"dropped: {NOTHING_TRAINED}"
    elif not cut.length:
        note = f"dropped: {PROMPT_TOO_LONG}"
    elif cut.answer_cut:
        note = f"cut at cutoff_len: {len(trained) - cut.length:,} tokens of the answer and its end are lost"
    elif cut.turns_dropped:
        note = f"shortened to cutoff_len: {cut.turns_dropped} later answers are left out"
    dropped = note is not None and note.startswith("dropped")
    length = len(trained) if dropped else cut.length
    pieces = tuple(split_pieces(sample.ids[:length], sample.trained[:length], decode))
    number, which, samples = place
    counts = length, int(np.count_nonzero(trained[:length]))
    return PreviewRow(number, sample.origin, pieces, *counts, note, dropped, which, samples)


def split_pieces(ids: Sequence[int], trained: Sequence[bool], decode: Decode) -> list[Piece]:
    """Tokens with the text that each adds. Tokens that hold parts of one character are kept together.

    The text of a token is what decoding gains by it behind the piece before it: decoded alone, tokens of SentencePiece
    lose their blank, and those of byte-level BPE may be no characters at all.
    """
    pieces: list[Piece] = []
    context, begin = 0, 0
    for end in range(1, len(ids) + 1):
        text = decode(ids[context:end])[len(decode(ids[context:begin])) :]
        if text.endswith("\ufffd") and end - begin < LONGEST_CHARACTER and end < len(ids):
            continue
        pieces.append(Piece(text, tuple(int(token) for token in ids[begin:end]), any(trained[begin:end])))
        context, begin = begin, end
    return pieces
