"""What travels from a source to a format: rows with their place, and the two ways in which one can be unusable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tunesmith.core.types import Origin

__all__ = ["AGAIN", "Broken", "Row", "RowError", "shorten"]

AGAIN = "write the file again, or take it out of dataset"
"""What to do about a file that holds nothing."""


class Row(NamedTuple):
    """One row of a file. `values` is `Broken` where the line could not even be parsed."""

    values: Mapping[str, Any] | Broken
    origin: Origin


@dataclass(frozen=True, slots=True)
class Broken:
    """A row that its source could not parse; it is counted with the rows that its format cannot use."""

    code: str
    reason: str
    got: str | None = None


class RowError(Exception):
    """A row that cannot be used. `reason` is the same for all rows with the same fault, so that they can be counted;
    what differs from row to row is in `got`."""

    def __init__(self, code: str, reason: str, field: str | None = None, got: Any = None) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.field = field
        self.got = None if got is None else shorten(got) or None


def shorten(value: Any, width: int = 70) -> str:
    """A value on one line of at most `width` characters."""
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text[: 4 * width].split())
    return text if len(text) <= width else text[: width - 3] + "..."
