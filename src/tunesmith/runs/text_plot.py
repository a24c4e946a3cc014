"""Curves in a terminal: with dots of Braille, a colour for each curve; without colours, with a letter for each."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tunesmith.train.callbacks.log_lines import Series

__all__ = ["COLOURS", "LETTERS", "text_plot"]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
COLOURS = (36, 33, 35, 32, 31, 34)
"""Of ANSI's escape sequences, in the order of the curves."""

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bit of the dot in row y (of four) and column x (of two) of a Braille character, U+2800 and up."""

_LABEL = 9  # columns left of the axis


def text_plot(curves: Sequence[Series], *, colour: bool, width: int = 80, height: int = 14) -> list[str]:
    """Lines of at most `width` characters (escape sequences not counted): the curves over their steps. Values that are
    not finite are left out; no lines where nothing is left."""
    finite = [[(step, value) for step, value in points if math.isfinite(value)] for points in curves]
    every = [point for points in finite for point in points]
    if not every:
        return []
    first, last = min(step for step, _ in every), max(step for step, _ in every)
    low, high = min(value for _, value in every), max(value for _, value in every)
    cells = _Cells(width - _LABEL - 2, height, *((2, 4) if colour else (1, 1)))
    for number, points in enumerate(finite):
        cells.draw(number, points, (first, last), (low, high))
    texts = cells.lines(colour)
    marks = {0: high, height - 1: low, height // 2: high + (low - high) * (height // 2) / max(height - 1, 1)}
    lines = [f"{_number(marks[row]) if row in marks else '':>{_LABEL}} │{text}" for row, text in enumerate(texts)]
    ends = f"{first}{str(last).rjust(cells.width - len(str(first)))}"
    return [*lines, " " * _LABEL + " └" + "─" * cells.width, " " * (_LABEL + 2) + ends]


class _Cells:
    """A grid of characters, each of `across` times `down` dots. A later curve is drawn over an earlier one."""

    def __init__(self, width: int, height: int, across: int, down: int) -> None:
        self.width, self.height, self.across, self.down = width, height, across, down
        self._bits = [[0] * width for _ in range(height)]
        self._owner = [[-1] * width for _ in range(height)]

    def draw(self, number: int, points: Series, steps: tuple[int, int], values: tuple[float, float]) -> None:
        """A line through the means of what falls on the same column of dots."""
        columns: dict[int, list[float]] = {}
        for step, value in points:
            columns.setdefault(_scaled(step, *steps, self.width * self.across), []).append(value)
        heights = {x: self._row(sum(found) / len(found), *values) for x, found in sorted(columns.items())}
        before: tuple[int, int] | None = None
        for x, y in heights.items():
            for between_x, between_y in _line(*(before or (x, y)), x, y):
                self._dot(number, between_x, between_y)
            before = (x, y)

    def _row(self, value: float, low: float, high: float) -> int:
        return self.height * self.down - 1 - _scaled(value, low, high, self.height * self.down)

    def _dot(self, number: int, x: int, y: int) -> None:
        row, column = y // self.down, x // self.across
        if self._owner[row][column] != number:
            self._owner[row][column], self._bits[row][column] = number, 0
        self._bits[row][column] |= _DOTS[y % self.down][x % self.across]

    def lines(self, colour: bool) -> list[str]:
        return [
            "".join(map(_coloured if colour else _lettered, owners, bits)).rstrip()
            for owners, bits in zip(self._owner, self._bits, strict=True)
        ]


def _scaled(value: float, low: float, high: float, size: int) -> int:
    return min(int((value - low) / (high - low) * size), size - 1) if high > low else size // 2


def _line(x: int, y: int, to_x: int, to_y: int) -> list[tuple[int, int]]:
    """The dots of a straight line, both ends included."""
    length = max(abs(to_x - x), abs(to_y - y), 1)
    return [(round(x + (to_x - x) * n / length), round(y + (to_y - y) * n / length)) for n in range(length + 1)]


def _coloured(owner: int, bits: int) -> str:
    return " " if owner < 0 else f"\x1b[{COLOURS[owner % len(COLOURS)]}m{chr(0x2800 + bits)}\x1b[0m"


def _lettered(owner: int, _bits: int) -> str:
    return " " if owner < 0 else LETTERS[owner % len(LETTERS)]


def _number(value: float) -> str:
    return f"{value:.4g}"
