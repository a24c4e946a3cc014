"""How far reading is: rows done, and of how many, as far as that can be told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from tunesmith.data.rows import Row, Unparsed

__all__ = ["Estimate", "Progress", "shifted"]

Progress: TypeAlias = Callable[[int, int | None], None]
"""Called with (rows done, of how many: None if that is not known)."""


def shifted(notify: Progress | None, before: int, last: bool) -> Progress | None:
    """Progress of one dataset as progress of all: `before` rows are done; the total is known in the last one."""
    if notify is None:
        return None
    return lambda done, total: notify(before + done, before + total if last and total is not None else None)


class Estimate:
    """How many rows there are, from the bytes of those that were read and of the file. `before`: rows that were done by
    an earlier process, and are not read here."""

    def __init__(self, size: int | None, before: int = 0) -> None:
        self._size, self._before, self._read, self._rows = size, before, 0, 0

    def watch(self, blocks: Iterable[list[Row]]) -> Iterator[list[Row]]:
        for block in blocks:
            self._rows += len(block)
            self._read += sum(len(row.values) for row in block if isinstance(row.values, Unparsed))
            yield block

    @property
    def rows(self) -> int | None:
        if not self._size or not self._read:
            return None
        return max(self._before + self._rows, round(self._rows * self._size / (self._read + self._rows)))
