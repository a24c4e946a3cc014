"""All checks over the data of a config, in one pass over the rows (a second one fetches the rows that are shown).
Memory grows by some 400 bytes a row, whatever its length."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from tunesmith.core.errors import Problem
from tunesmith.core.types import Example
from tunesmith.data.lint.base import Context, Finding, LintRow, Place, Severity, Tally
from tunesmith.data.lint.checks import ROW_CHECKS, SET_CHECKS
from tunesmith.data.lint.columns import Columns, Gatherer
from tunesmith.data.lint.media import BadMedia, Decoding, MediaNumbers, in_turn
from tunesmith.data.lint.redact import redact
from tunesmith.data.lint.report import LintReport
from tunesmith.data.lint.statistics import describe
from tunesmith.data.lint.texts import excerpt
from tunesmith.data.mapping import check_labels
from tunesmith.data.mix import hold_out, mix
from tunesmith.data.prepare import order_of
from tunesmith.data.progress import Progress
from tunesmith.data.reading import most_bad, open_walks
from tunesmith.data.sequences import encode_examples
from tunesmith.data.walk import Walk, fetch
from tunesmith.media.limits import MediaLimits

if TYPE_CHECKING:
    from tunesmith.config.data import DataConfig
    from tunesmith.render import Renderer

__all__ = ["Lint", "lint", "lint_examples"]

BATCH = 256
_ROW = re.compile(r"\{(\d+)\}")


@dataclass(slots=True)
class _Unrendered:
    """Rows that the template or the tokenizer cannot take, by what is wrong with them."""

    groups: dict[tuple[str, str], Finding] = field(default_factory=dict)

    def add(self, number: int, problem: Problem) -> None:
        key = (problem.code, problem.what)
        if key not in self.groups:
            fix = problem.fix or "mend these rows, or leave them out with on_bad_row: skip"
            self.groups[key] = Finding(problem.code, "error", problem.what, 0, 0, fix)
        found = self.groups[key]
        found.count += 1
        if len(found.places) < 5:
            found.places.append(Place(number, redact(problem.got or "")))


@dataclass(slots=True)
class Lint:
    """The report, and the examples that its findings name by the number of the row."""

    report: LintReport
    examples: Mapping[int, Example]


def lint(
    data: DataConfig,
    *,
    stage: str,
    seed: int = 42,
    renderer: Renderer | None = None,
    limits: MediaLimits | None = None,
    notify: Progress | None = None,
) -> Lint:
    """Check the data of a config. Without a renderer the checks that need tokens are left out, and it is said. Media
    are decoded to the size that `limits` say.

    Raises what reading raises for files that are missing or cannot be read; rows that cannot be used are findings.
    """
    walks = open_walks(data, stage=stage, seed=seed)
    blocks = stage == "pt" and data.packs(stage)
    cutoff_len = None if blocks or renderer is None else data.cutoff_len
    context = Context(stage, cutoff_len, getattr(renderer, "control", None), data.on_too_long)
    found, bad_media = _Pass(context, renderer), [BadMedia() for _ in walks]
    decoding = [_decoding(walk, limits or MediaLimits()) for walk in walks]
    for walk, own in zip(walks, bad_media, strict=True):
        walk.on_fault = own.add
    found.run(in_turn(walks, notify, decoding))
    columns = found.gatherer.columns([walk.report.name for walk in walks])
    columns.held = _held(data, walks, columns, seed)

    media = sum(walk.bad.media for walk in walks)
    bad = sum(walk.bad.count for walk in walks) - media + sum(one.count for one in found.unrendered.groups.values())
    limits = (bad, most_bad(data, media=False)), (media, most_bad(data, media=True))
    stops = any(not walk.examples for walk in walks) or any(most is not None and own > most for own, most in limits)
    findings = [*_bad_rows(walks, stops), *_one_kind_of_label(walks), *found.findings(columns, stops)]
    for walk, own in zip(walks, bad_media, strict=True):
        findings += own.findings(walk.report.rows, stops=stops)
    stops |= any(one.code in ("E-DATA-061", "E-LINT-012") and one.severity == "error" for one in findings)
    examples = _resolve(findings, walks)
    statistics = [
        replace(
            describe(columns, number, walk.report.use, walk.report.rows, context.cutoff_len),
            media=found.media.of(number),
        )
        for number, walk in enumerate(walks)
    ]
    notices = [notice for walk in walks for notice in walk.notices]
    report = LintReport(stage, context.cutoff_len, statistics, findings, found.skipped(), notices, stops)
    return Lint(report, examples)


def lint_examples(examples: Sequence[Example], renderer: Renderer | None = None, stage: str = "sft") -> list[Finding]:
    """What is wrong with examples that are in memory, all of them training data."""
    found = _Pass(Context(stage, None, getattr(renderer, "control", None)), renderer)
    found.run([examples])
    findings = found.findings(found.gatherer.columns(["examples"]), stops=True)
    _resolve(findings, [examples])
    return findings


class _Pass:
    """The one pass: every row goes through the checks of rows, and leaves its numbers behind."""

    def __init__(self, context: Context, renderer: Renderer | None) -> None:
        self.context, self.renderer = context, renderer
        self.gatherer, self.media = Gatherer(), MediaNumbers()
        self.unrendered = _Unrendered()
        has_control = context.control is not None
        known = [check for check in ROW_CHECKS if renderer is not None or not check.needs_tokens]
        self.tallies = [Tally(check) for check in known if has_control or check.code != "E-LINT-023"]

    def run(self, datasets: Iterable[Iterable[Example]]) -> None:
        number = 0
        for index, examples in enumerate(datasets):
            rest = iter(examples)
            while batch := list(islice(rest, BATCH)):
                rows = self._rows(batch, number, index)
                for row in rows:
                    for tally in self.tallies:
                        tally.add(row, self.context)
                self.gatherer.add(rows)
                self.media.add(rows)
                number += len(rows)

    def _rows(self, batch: Sequence[Example], number: int, dataset: int) -> list[LintRow]:
        if self.renderer is None:
            return [LintRow(example, number + i, dataset) for i, example in enumerate(batch)]
        rows = []
        for i, (example, found) in enumerate(zip(batch, encode_examples(self.renderer, batch), strict=True)):
            if isinstance(found, Problem):
                self.unrendered.add(number + i, found)
                rows.append(LintRow(example, number + i, dataset))
            else:
                sequences = [sample for reading in found for sample in reading.samples]
                rows.append(LintRow(example, number + i, dataset, sequences))
        return rows

    def findings(self, columns: Columns, stops: bool) -> list[Finding]:
        found = [finding for tally in self.tallies if (finding := tally.finding(len(columns)))]
        for check in SET_CHECKS:
            if self.renderer is not None or not check.needs_tokens:
                found += check.find(columns, self.context)
        for one in self.unrendered.groups.values():
            one.total, one.severity = len(columns), "error" if stops else "warning"
            found.append(one)
        return found

    def skipped(self) -> list[str]:
        if self.renderer is not None:
            return []
        names = [check.what for check in ROW_CHECKS if check.needs_tokens]
        names += [check.name for check in SET_CHECKS if check.needs_tokens]
        return [
            "the config names no model (model_name_or_path), so lengths are in characters and these checks are left "
            f"out: {'; '.join(names)}"
        ]


def _decoding(walk: Walk, limits: MediaLimits) -> Decoding | None:
    """What decodes the media of a dataset from now on; None where it has none."""
    if walk.opened.settle is None:
        return None
    walk.opened.settle = decoding = Decoding(walk.opened.settle, limits)
    return decoding


def _held(data: DataConfig, walks: Sequence[Walk], columns: Columns, seed: int) -> np.ndarray:
    """Which rows are evaluation data: `eval_dataset`, and what val_size takes from the training data, as a run does."""
    use = np.array([walk.report.use == "eval" for walk in walks], dtype=np.bool_)
    held: np.ndarray = use[columns.dataset]
    if not data.val_size:
        return held
    # A run counts examples that have something to train. Without a tokenizer all are taken to have.
    kept = columns.trained > 0 if columns.trained.any() else np.ones(len(columns), dtype=np.bool_)
    orders: list[np.ndarray] = []
    for number, walk in enumerate(walk for walk in walks if walk.report.use == "train"):
        rows = np.flatnonzero((columns.dataset == number) & kept)
        if (chosen := walk.opened.chosen) is not None:
            begin = int(np.searchsorted(columns.dataset, number))
            rows = rows[order_of(chosen, walk.positions[rows - begin])]
        orders.append(rows)
    sizes = [len(order) for order in orders]
    if all(sizes) and sizes:
        order = mix(sizes, data.mix_strategy, data.interleave_probs or None, seed)
        held[hold_out(np.concatenate(orders)[order], data.val_size, seed)[1]] = True
    return held


def _bad_rows(walks: Sequence[Walk], stops: bool) -> Iterator[Finding]:
    """Rows that no example could be made of, by reason; of those with bad media `BadMedia` knows more."""
    for one in walks:
        for group in (group for group in one.bad.groups() if not group.of_media):
            places = [Place(-1, redact(group.got or ""), origin) for origin in group.places]
            fix = group.fix or f"mend these rows, or leave them out with {group.key}: skip"
            severity: Severity = "error" if stops else "warning"
            yield Finding(group.code, severity, group.what, group.count, one.report.rows, fix, places)


def _one_kind_of_label(walks: Sequence[Walk]) -> Iterator[Finding]:
    """Feedback that a run refuses, because it holds one kind only."""
    train = [walk for walk in walks if walk.report.use == "train"]
    tallies = sum((walk.tallies for walk in train), Counter())
    if problem := check_labels(", ".join(walk.spec.location for walk in train), tallies):
        count = sum(tallies.values())
        yield Finding(problem.code, "error", problem.what, count, count, problem.fix or "add answers of the other kind")


def _resolve(findings: Sequence[Finding], datasets: Sequence[Walk | Sequence[Example]]) -> dict[int, Example]:
    """Turn numbers of rows into places and excerpts. Returns the examples of the rows that findings name."""
    named = {place.row for one in findings for place in one.places if place.row >= 0}
    beside = {int(row) for one in findings for place in one.places for row in _ROW.findall(place.note)}
    examples = fetch(datasets, named | beside)
    for place in (place for one in findings for place in one.places):
        if place.row >= 0:
            place.origin = examples[place.row].origin
            place.excerpt = place.excerpt or _first_words(examples[place.row])
        place.note = _ROW.sub(lambda match: str(examples[int(match[1])].origin), place.note)
    return {row: examples[row] for row in named}


def _first_words(example: Example) -> str:
    row = LintRow(example, 0, 0)
    if not row.question:
        return excerpt(row.answer)
    return f"{excerpt(row.question, width=50)} → {excerpt(row.answer, width=40)}"
