"""The page of `data preview`: rows as the model will see them, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby

from tunesmith.data.html.page import escape, page
from tunesmith.data.html.strip import legend, row_strips
from tunesmith.data.preview import Preview
from tunesmith.data.shown_media import Thumbnail

__all__ = ["preview_page"]


def preview_page(found: Preview, title: str, summary: list[str], pictures: Mapping[str, Thumbnail]) -> str:
    """`summary`: lines on the whole, as the terminal shows them. `pictures`: of the rows' media, by their digests."""
    return page(f"Data preview: {title}", _body(found, title, summary, pictures))


def _body(found: Preview, title: str, summary: list[str], pictures: Mapping[str, Thumbnail]) -> Iterator[str]:
    yield f"<h1>Data preview: {escape(title)}</h1>"
    for line in summary:
        yield f'<p class="dim">{escape(line)}</p>'
    yield "<p>A piece is a token, or the tokens of one character. Point at it for its id and why it is not trained.</p>"
    yield legend()
    for number, samples in groupby(found.rows, key=lambda row: row.number):
        rows = list(samples)
        yield f'<section class="row"><h3>row {number} <code class="dim">{escape(rows[0].origin)}</code></h3>'
        for row in rows:
            yield from row_strips(row, pictures)
        yield "</section>"
