"""Rows as the model will see them: pieces of text with their tokens, and which of them are trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.core.types import Encoded, Origin
from tunesmith.data.build import read_examples
from tunesmith.data.rendering import NOTHING_TRAINED, PROMPT_TOO_LONG, render_examples
from tunesmith.data.truncate import cut_point

if TYPE_CHECKING:
    from tunesmith.config.data import DataConfig
    from tunesmith.render import Renderer

__all__ = ["Piece", "PreviewRow", "preview", "split_pieces"]

LONGEST_CHARACTER = 8  # tokens; four bytes are the longest character, some tokenizers use more than one token per byte


@dataclass(frozen=True, slots=True)
class Piece:
    """The fewest tokens that make whole characters: mostly one. Trained if any of them is."""

    text: str
    ids: tuple[int, ...]
    trained: bool


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """One training sample. `note` says what cutoff_len did to it; a dropped sample shows what it would have been."""

    origin: Origin
    pieces: tuple[Piece, ...]
    tokens: int
    trained: int
    note: str | None = None
    dropped: bool = False


def preview(
    data: DataConfig, renderer: Renderer, tokenizer: Any, *, stage: str, rows: int, start: int = 0
) -> list[PreviewRow]:
    """The samples of `rows` rows from row `start` (0-based, in the order of the files) of `dataset`, or of
    `eval_dataset` if there is no other. With packing the documents are shown, not the blocks.

    `tokenizer`: of transformers, for decoding. Raises what `build_datasets` raises.
    """
    which = "train" if data.dataset else "eval"
    examples = read_examples(data, stage=stage, which=which)[start : start + rows]

    def decode(ids: Sequence[int]) -> str:
        text: str = tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    cutoff_len = None if stage == "pt" and data.packing is not False else data.cutoff_len
    samples = render_examples(renderer, examples) if examples else []
    return [_row(sample, cutoff_len, decode) for group in samples for sample in group]


def _row(sample: Encoded, cutoff_len: int | None, decode: Callable[[Sequence[int]], str]) -> PreviewRow:
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
    pieces = split_pieces(sample.ids[:length], sample.trained[:length], decode)
    return PreviewRow(sample.origin, tuple(pieces), length, int(np.count_nonzero(trained[:length])), note, dropped)


def split_pieces(ids: Sequence[int], trained: Sequence[bool], decode: Callable[[Sequence[int]], str]) -> list[Piece]:
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
