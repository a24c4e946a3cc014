"""Checks of lengths in tokens: what cutoff_len costs, and how much of a dataset is trained."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tunesmith.data.lint.base import PLACES, Context, Finding, Place, Severity
from tunesmith.data.lint.columns import Columns

__all__ = ["little_is_trained", "longer_than_cutoff"]

LITTLE = 0.02
MANY_LOST = 0.05

Mask = npt.NDArray[np.bool_]


def longer_than_cutoff(columns: Columns, context: Context) -> Iterator[Finding]:
    """Rows of which nothing that is trained fits, and rows that are merely shortened."""
    if context.cutoff_len is None or not len(columns):
        return
    total = len(columns)
    too_long = columns.tokens > context.cutoff_len
    lost = too_long & (columns.first_trained >= context.cutoff_len) & (columns.trained > 0)
    longest = int(columns.tokens.max())
    fix = f"raise cutoff_len (the longest row has {longest:,} tokens), or shorten the rows"
    whole = context.on_too_long in ("drop", "error")  # then it does not matter what of the row would fit
    rest = f"longer than cutoff_len (on_too_long: {context.on_too_long})"
    kinds: tuple[tuple[Mask, Severity, str], ...] = (
        (lost, "error" if lost.sum() > MANY_LOST * total else "warning", "the prompt alone is longer than cutoff_len"),
        (too_long & ~lost, "note", rest),
    )
    if whole:
        kinds = ((too_long, "error" if context.on_too_long == "error" else "warning", rest),)
    for mask, severity, what in kinds:
        if mask.any():
            rows = np.flatnonzero(mask)
            rows = rows[np.argsort(-columns.tokens[rows], kind="stable")][:PLACES]  # the longest first
            places = [Place(int(row), note=f"{columns.tokens[row]:,} tokens") for row in rows]
            yield Finding("E-LINT-012", severity, what, int(mask.sum()), total, fix, places)


def little_is_trained(columns: Columns, context: Context) -> Iterator[Finding]:
    """Datasets of which next to nothing is trained: most of the time of a run would go into reading prompts."""
    for number, name in enumerate(columns.names):
        mine = columns.dataset == number
        tokens, trained = int(columns.all_tokens[mine].sum()), int(columns.trained[mine].sum())
        if 0 < trained < LITTLE * tokens:
            fix = "if that is not meant: shorten the prompts, or train on all answers of a chat (mask_history: false)"
            what = f"{name}: little of it is trained"
            yield Finding("E-LINT-013", "note", what, trained, tokens, fix, unit="tokens")
