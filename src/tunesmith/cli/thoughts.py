"""Split a stream of text into what the model thinks and what it says, so that a terminal can dim the first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

__all__ = ["Piece", "split_thoughts"]


class Piece(NamedTuple):
    text: str
    thought: bool


def split_thoughts(chunks: Iterable[str], open_mark: str, close_mark: str, *, thought: bool = False) -> Iterator[Piece]:
    """Pieces as soon as they are certain. The marks themselves are left out, and may be cut anywhere by chunks.

    `thought`: the text begins inside a thought, because the prompt has written the opening mark.
    """
    held = ""
    for chunk in chunks:
        held += chunk
        while (at := held.find(mark := close_mark if thought else open_mark)) >= 0:
            if at:
                yield Piece(held[:at], thought)
            held = held[at + len(mark) :]
            thought = not thought
        certain = len(held) - _overlap(held, mark)
        if certain:
            yield Piece(held[:certain], thought)
            held = held[certain:]
    if held:
        yield Piece(held, thought)


def _overlap(text: str, mark: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `mark`."""
    return next((size for size in range(min(len(text), len(mark) - 1), 0, -1) if mark.startswith(text[-size:])), 0)
