"""The page of `data check`: a summary, every finding with its rows and their tokens, the numbers of each dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tunesmith.data.html.charts import histogram_svg
from tunesmith.data.html.page import escape, page, table
from tunesmith.data.html.strip import legend, row_strips
from tunesmith.data.lint.base import Finding, Place
from tunesmith.data.lint.redact import secret_ranges
from tunesmith.data.lint.report import LintReport, percent
from tunesmith.data.lint.statistics import DatasetStatistics
from tunesmith.data.preview import PreviewRow
from tunesmith.data.shown_media import Thumbnail

__all__ = ["check_page"]

MOST_PIECES = 1500
"""Tokens of a row that the page draws: a page of hundreds of rows should open at once."""

Strips = Mapping[int, Sequence[PreviewRow]]


def check_page(report: LintReport, title: str, strips: Strips, pictures: Mapping[str, Thumbnail]) -> str:
    """`strips`: the samples of the rows that findings name, by the number of the row; empty without a tokenizer.
    `pictures`: of their media, by their digests."""
    return page(f"Data check: {title}", _body(report, title, strips, pictures))


def _body(report: LintReport, title: str, strips: Strips, pictures: Mapping[str, Thumbnail]) -> Iterator[str]:
    yield f"<h1>Data check: {escape(title)}</h1>"
    cutoff = f", cutoff_len {report.cutoff_len:,}" if report.cutoff_len else ""
    yield f'<p class="dim">stage {escape(report.stage)}{cutoff}</p>'
    yield from _cards(report)
    for text in (*report.notices, *report.skipped):
        yield f'<p class="dim">Note: {escape(text)}</p>'
    yield "<h2>Findings</h2>"
    if not report.findings:
        yield '<p class="good">Nothing was found.</p>'
    if strips:
        yield legend()
    for one in report.findings:
        yield from _finding(one, strips, pictures)
    yield "<h2>Datasets</h2>"
    for numbers in report.datasets:
        yield from _dataset(numbers, report.cutoff_len)


def _cards(report: LintReport) -> Iterator[str]:
    rows = sum(one.rows for one in report.datasets)
    tokens = sum(one.tokens for one in report.datasets)
    trained = sum(one.trained for one in report.datasets)
    cards = [("", "rows", f"{rows:,}")]
    if tokens:
        cards += [("", "tokens", f"{tokens:,}"), ("", "trained", percent(trained / tokens))]
    cards += [(name, f"{name}s", f"{count:,}") for name, count in report.counts().items()]
    yield '<div class="cards">'
    for kind, name, value in cards:
        lit = f" {kind}" if kind and value != "0" else ""
        yield f'<div class="card{lit}"><b>{escape(value)}</b>{escape(name)}</div>'
    yield "</div>"


def _finding(one: Finding, strips: Strips, pictures: Mapping[str, Thumbnail]) -> Iterator[str]:
    share = f" ({percent(one.share)})" if one.total > one.count else ""
    yield f'<section class="finding {one.severity}">'
    yield f'<div class="head"><h3><span class="badge">{one.severity}</span>{escape(one.what)}</h3></div>'
    yield f'<p>{one.count:,} of {one.total:,} {escape(one.unit)}{share} <code class="dim">{escape(one.code)}</code></p>'
    yield f"<p>What to do: {escape(one.fix)}</p>"
    if one.kinds:
        yield table(("which", "times"), list(one.kinds.items())[:20])
    for place in one.places:
        yield from _place(place, strips.get(place.row, ()), pictures)
    more = one.count - len(one.places)
    if one.places and more > 0 and one.unit == "rows":
        yield f'<p class="dim">and {more:,} more</p>'
    yield "</section>"


def _place(place: Place, samples: Sequence[PreviewRow], pictures: Mapping[str, Thumbnail]) -> Iterator[str]:
    note = f' <span class="dim">({escape(place.note)})</span>' if place.note else ""
    head = f"<code>{escape(place.origin)}</code>{note} {escape(place.excerpt)}"
    if not samples:
        yield f"<p>{head}</p>"
        return
    yield f"<details><summary>{head}</summary>"
    for row in samples:
        text = "".join(piece.text for piece in (*row.pieces, *row.lost))
        yield from row_strips(row, pictures, secret_ranges(text), MOST_PIECES)
    yield "</details>"


def _dataset(one: DatasetStatistics, cutoff_len: int | None) -> Iterator[str]:
    use = " (evaluation)" if one.use == "eval" else ""
    yield f'<section class="row"><h3>{escape(one.name)}{use}</h3>'
    lengths = one.lengths
    head = ["rows", "unfit", "tokens", "trained", "shortest", "median", "95 %", "longest"]
    share = percent(one.trained / one.tokens) if one.tokens else "-"
    numbers = [one.rows, one.rows - one.usable, one.tokens or "-", share]
    yield table(head, [[*numbers, lengths.least, lengths.median, lengths.p95, lengths.most]])
    yield f'<p class="dim">Lengths in {lengths.unit}, before anything is cut.</p>'
    yield histogram_svg(lengths, cutoff_len)
    if one.longer_than_cutoff:
        yield f"<p>{one.longer_than_cutoff:,} rows are longer than cutoff_len.</p>"
    for kind, media in one.media.items():
        yield f"<p>{escape(media.told(kind))}.</p>"
    if one.scripts:
        scripts = ", ".join(f"{name} {percent(share)}" for name, share in one.scripts.items())
        yield f"<p>Letters: {escape(scripts)}.</p>"
    if one.unfinished is not None:
        yield f"<p>{percent(one.unfinished)} of the answers end without a final sign.</p>"
    yield "</section>"
