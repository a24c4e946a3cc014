"""Checks that compare rows: exact and near-duplicates, and evaluation rows that are in the training data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tunesmith.data.lint.base import PLACES, Context, Finding, Place, Severity
from tunesmith.data.lint.columns import MOST_SKETCHED, Columns
from tunesmith.data.lint.sketch import SIMILAR, candidates, clusters, similarity

__all__ = ["exact_duplicates", "leaked_prompts", "leaked_rows", "near_duplicates"]

MANY = 0.01  # from this share on duplicates are worth a warning
_LIKE = 3  # members of a cluster that are named
_REMOVE = "leave the copies out, or count on training them that often"
_LEAK = "take these rows out of one of the two, or the evaluation measures memory"

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def _severity(count: int, total: int) -> Severity:
    return "warning" if count >= MANY * total else "note"


def _groups(values: npt.NDArray[np.uint64], rows: Ints) -> list[Ints]:
    """Rows with equal values, in groups of two or more; the largest first, members in their order."""
    order = rows[np.argsort(values[rows], kind="stable")]
    begins = np.flatnonzero(np.concatenate([[True], values[order][1:] != values[order][:-1]]))
    groups = np.split(order, begins[1:]) if len(order) else []
    return sorted((group for group in groups if len(group) > 1), key=lambda group: (-len(group), group[0]))


def exact_duplicates(columns: Columns, context: Context) -> Iterator[Finding]:
    """Within the training data; evaluation rows are another matter."""
    rows = np.flatnonzero(~columns.held)
    groups = _groups(columns.text, rows)
    if groups:
        copies = sum(len(group) - 1 for group in groups)
        places = [Place(int(group[0]), note=f"{len(group):,} times") for group in groups[:PLACES]]
        what = f"exact copies of other rows (different texts: {len(groups):,})"
        severity = _severity(copies, len(rows))
        yield Finding("E-LINT-007", severity, what, copies, len(rows), _REMOVE, places)


def near_duplicates(columns: Columns, context: Context) -> Iterator[Finding]:
    """Clusters of training rows that are alike, exact copies counted once."""
    sketched = np.flatnonzero(~columns.held)
    sketched = sketched[sketched < len(columns.sketches)]
    _, once = np.unique(columns.text[sketched], return_index=True)
    rows = sketched[np.sort(once)]
    sketches = columns.sketches.take(rows)
    pairs = candidates(sketches.bands)
    alike = pairs[similarity(sketches.minima, pairs) >= SIMILAR]
    groups = clusters(len(rows), alike)
    if not groups:
        return
    places = []
    for group in groups[:PLACES]:
        others = np.stack([np.full(len(group) - 1, group[0]), group[1:]], axis=1)
        near = similarity(sketches.minima, others)
        best = np.argsort(-near, kind="stable")[:_LIKE]
        like = _like(rows, others[best], near[best])
        places.append(Place(int(rows[group[0]]), note=f"a cluster of {len(group):,}: {like}"))
    more = sum(len(group) - 1 for group in groups)
    what = f"nearly the same as other rows (clusters: {len(groups):,}{_limit(columns)})"
    yield Finding("E-LINT-008", _severity(more, len(rows)), what, more, len(rows), _REMOVE, places)


def _like(rows: Ints, pairs: Ints, near: npt.NDArray[np.float64]) -> str:
    """`row 17 (0.93), row 40 (0.85)`, which `run` turns into places."""
    return ", ".join(f"{{{rows[pair[1]]}}} ({value:.2f})" for pair, value in zip(pairs, near, strict=True))


def _limit(columns: Columns) -> str:
    return f", looked for in the first {MOST_SKETCHED:,} rows" if len(columns.sketches) < len(columns) else ""


def leaked_rows(columns: Columns, context: Context) -> Iterator[Finding]:
    """Evaluation rows that are training rows too: as they are, or nearly."""
    held, total = np.flatnonzero(columns.held), int(columns.held.sum())
    train = np.flatnonzero(~columns.held)
    if not total or not len(train):
        return
    exact = _partners(columns.text, train, held)
    if len(exact):
        places = [Place(int(row), note=f"is {{{other}}}") for row, other in exact[:PLACES]]
        what = "evaluation rows that are training rows as well"
        yield Finding("E-LINT-009", "warning", what, len(exact), total, _LEAK, places, leak=True)
    near = _near_partners(columns, set(exact[:, 0].tolist()))
    if near:
        places = [Place(row, note=f"like {{{other}}} ({value:.2f})") for row, other, value in near[:PLACES]]
        what = f"evaluation rows that are nearly a training row{_limit(columns)}"
        yield Finding("E-LINT-010", "warning", what, len(near), total, _LEAK, places, leak=True)


def leaked_prompts(columns: Columns, context: Context) -> Iterator[Finding]:
    """Evaluation rows whose prompt is a training prompt too, with another answer."""
    chats = columns.prompt_length > 0
    train, held = np.flatnonzero(~columns.held & chats), np.flatnonzero(columns.held & chats)
    same = _partners(columns.prompt, train, held)
    rows = set(_partners(columns.text, train, held)[:, 0].tolist())
    other = [(int(row), int(partner)) for row, partner in same if row not in rows]
    if other:
        places = [Place(row, note=f"the prompt of {{{partner}}}") for row, partner in other[:PLACES]]
        what = "evaluation prompts that are training prompts, with another answer"
        yield Finding("E-LINT-011", "note", what, len(other), len(held), _LEAK, places)


def _partners(values: npt.NDArray[np.uint64], train: Ints, held: Ints) -> Ints:
    """(evaluation row, first training row of the same value) [P, 2]."""
    known, first = np.unique(values[train], return_index=True)
    at = np.searchsorted(known, values[held])
    found = np.zeros(len(held), dtype=np.bool_)
    inside = at < len(known)
    found[inside] = known[at[inside]] == values[held[inside]]
    return np.stack([held[found], train[first[at[found]]]], axis=1)


def _near_partners(columns: Columns, exact: set[int]) -> list[tuple[int, int, float]]:
    """(evaluation row, training row, similarity) of evaluation rows that are near one, the most similar of its
    candidates; without those that are exactly one."""
    sketches = columns.sketches
    held = columns.held[: len(sketches)]
    pairs = candidates(sketches.bands, anchor=~held)
    across = held[pairs[:, 0]] != held[pairs[:, 1]]
    pairs = pairs[across]
    near = similarity(sketches.minima, pairs)
    best: dict[int, tuple[float, int]] = {}
    for index in np.flatnonzero(near >= SIMILAR):
        one, two = (int(row) for row in pairs[index])
        row, other = (one, two) if held[one] else (two, one)
        if row not in exact:
            best[row] = max(best.get(row, (0.0, -1)), (float(near[index]), other))
    return [(row, other, value) for row, (value, other) in sorted(best.items())]
