"""Token sequences as text again, cut where training begins and ends, in colour or between marks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.text import Text

    from tunesmith.data import TokenDataset

__all__ = ["MARKS", "Part", "Row", "coloured", "marked", "parts_of", "rows_of"]

MARKS = "⟦", "⟧"
TRAINED_STYLE, OTHER_STYLE = "bold green", "dim"


@dataclass(frozen=True, slots=True)
class Part:
    text: str
    trained: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A row as the model sees it. `place`: where it came from."""

    number: int
    place: str
    tokens: int
    trained: int
    parts: tuple[Part, ...]

    @property
    def head(self) -> str:
        return f"row {self.number}: {self.place}, {self.tokens:,} tokens, {self.trained:,} trained"

    def to_dict(self) -> dict[str, Any]:
        parts = [{"text": part.text, "trained": part.trained} for part in self.parts]
        return {"row": self.number, "place": self.place, "tokens": self.tokens, "trained": self.trained, "parts": parts}


def rows_of(dataset: TokenDataset, decode: Callable[[Sequence[int]], str], start: int, count: int) -> Iterator[Row]:
    """Rows `start` to `start + count` of a dataset, as far as it goes. `decode`: ids -> text, control tokens too."""
    for index in range(start, min(start + count, len(dataset))):
        row = dataset[index]
        ids, trained = row["input_ids"].tolist(), row["trained"].tolist()
        parts = tuple(parts_of(ids, trained, decode))
        yield Row(index, str(dataset.origins[index]), len(ids), sum(trained), parts)


def parts_of(ids: Sequence[int], trained: Sequence[bool], decode: Callable[[Sequence[int]], str]) -> Iterator[Part]:
    """The text of each run of tokens that are all trained, or all not.

    Each is the difference of two decodings from the start: a decoder looks at neighbours (SentencePiece drops a
    first blank), so that pieces decoded alone would not join to the whole.
    """
    end, before = 0, ""
    for is_trained, run in groupby(trained):
        end += len(list(run))
        text = decode(ids[:end])
        yield Part(text[len(before) :], is_trained)
        before = text


def marked(row: Row) -> str:
    """A row as plain text with the trained parts between marks."""
    opening, closing = MARKS
    return "".join(f"{opening}{part.text}{closing}" if part.trained else part.text for part in row.parts)


def coloured(row: Row) -> Text:
    """A row as rich text: trained parts stand out by colour and weight, the rest is dim."""
    from rich.text import Text

    text = Text()
    for part in row.parts:
        text.append(part.text, TRAINED_STYLE if part.trained else OTHER_STYLE)
    return text
