"""Checks for columns that mean something else than they are read as: columns swapped, one column taken twice."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tunesmith.data.lint.base import PLACES, Context, Finding, Hit, LintRow, Place
from tunesmith.data.lint.columns import Columns
from tunesmith.data.lint.texts import excerpt

__all__ = ["answer_repeats_prompt", "answers_all_equal", "answers_look_like_prompts", "prompts_all_equal"]

FEW = 10
"""Of fewer rows nothing is said about all of them."""
NEARLY_ALL = 0.9
MUCH_SHORTER = 20
_LEAST_REPEATED = 20  # characters: a short answer may well be the short question again

Mask = npt.NDArray[np.bool_]


def answer_repeats_prompt(row: LintRow, context: Context) -> Iterator[Hit]:
    question = row.question.strip()
    if len(question) >= _LEAST_REPEATED and row.answer.strip().startswith(question):
        yield Hit(excerpt(row.answer))


def _chosen(columns: Columns) -> Iterator[tuple[str, Mask]]:
    """Datasets with enough rows of prompt and answer, and which rows are theirs."""
    for number, name in enumerate(columns.names):
        mine = (columns.dataset == number) & (columns.answer_length > 0) & (columns.prompt_length > 0)
        if mine.sum() >= FEW:
            yield name, mine


def _first(mask: Mask) -> list[Place]:
    return [Place(int(row)) for row in np.flatnonzero(mask)[:PLACES]]


def prompts_all_equal(columns: Columns, context: Context) -> Iterator[Finding]:
    yield from _all_equal(columns, columns.question, "E-LINT-014", "the prompt is the same in nearly all rows")


def answers_all_equal(columns: Columns, context: Context) -> Iterator[Finding]:
    yield from _all_equal(columns, columns.answer, "E-LINT-015", "the answer is the same in nearly all rows")


def _all_equal(columns: Columns, hashes: npt.NDArray[np.uint64], code: str, what: str) -> Iterator[Finding]:
    """A text that stands in nearly all rows. Rows that are equal as a whole are duplicates, and count once."""
    for name, mine in _chosen(columns):
        _, once = np.unique(columns.text[mine], return_index=True)
        different = np.flatnonzero(mine)[once]
        if len(different) < FEW:
            continue
        values, counts = np.unique(hashes[different], return_counts=True)
        if counts.max() >= NEARLY_ALL * len(different):
            same = mine & (hashes == values[counts.argmax()])
            fix = "look whether the right column is read: columns in dataset_info.json"
            yield Finding(code, "warning", f"{name}: {what}", int(same.sum()), int(mine.sum()), fix, _first(same))


def answers_look_like_prompts(columns: Columns, context: Context) -> Iterator[Finding]:
    """Columns that may be swapped: answers ask and prompts do not, or prompts are long and answers next to nothing."""
    for name, mine in _chosen(columns):
        total = int(mine.sum())
        asking = mine & (columns.asks == 2)  # the answer asks, the prompt does not
        short = mine & (columns.answer_length * MUCH_SHORTER < columns.prompt_length)
        fix = "look at them with tunesmith data preview; if prompt and answer are swapped, swap the columns"
        if asking.sum() > total / 2:
            what = f"{name}: most answers are questions, and their prompts are not"
            yield Finding("E-LINT-017", "warning", what, int(asking.sum()), total, fix, _first(asking))
        elif short.sum() >= NEARLY_ALL * total:
            what = f"{name}: answers are much shorter than their prompts"
            yield Finding("E-LINT-017", "note", what, int(short.sum()), total, fix, _first(short))
