"""Tokens as a strip of coloured pieces: what is trained, how much it counts, and why another is not trained; above them
the media that some of them stand for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tunesmith.data.html.page import escape
from tunesmith.data.preview import Piece, PreviewRow
from tunesmith.data.reasons import REASONS
from tunesmith.data.shown_media import ShownMedium, Thumbnail

__all__ = ["legend", "row_strips", "strip"]

_SHOWN_NEWLINE = "↵\n"


def legend() -> str:
    """What the colours mean."""
    kinds = [("trained", "trained"), *((kind, kind) for kind in REASONS)]
    spans = [f'<span class="{kind}" title="{escape(REASONS.get(kind, ""))}">{name}</span>' for kind, name in kinds]
    return f'<p class="legend">{"".join(spans)}<span class="trained weighted">weight is not 1</span></p>'


def strip(pieces: Sequence[Piece], hidden: Sequence[tuple[int, int]] = ()) -> str:
    """The pieces; those that touch a `hidden` range [start, end) of the whole text show neither text nor ids."""
    drawn = []
    start = 0
    for piece in pieces:
        end = start + len(piece.text)
        concealed = any(first < end and last > start for first, last in hidden)
        drawn.append(_span(piece, concealed))
        start = end
    return f'<div class="strip">{"".join(drawn)}</div>'


def _span(piece: Piece, concealed: bool) -> str:
    kind = "trained" if piece.trained else piece.why or "template"
    classes = [kind] + (["weighted"] if piece.trained and piece.weight != 1 else [])
    told = f"trained, weight {piece.weight:g}" if piece.trained else f"not trained: {REASONS[kind]}"
    ids = f"{len(piece.ids):,} ids" if kind == "media" else f"id {', '.join(map(str, piece.ids))}"
    ids = "hidden" if concealed else ids
    text = "•" * max(1, len(piece.text)) if concealed else piece.text
    shown = escape(text).replace("\n", _SHOWN_NEWLINE)
    return f'<span class="{" ".join(classes)}" title="{escape(f"{ids} · {told}")}">{shown}</span>'


def row_strips(
    row: PreviewRow,
    pictures: Mapping[str, Thumbnail],
    hidden: Sequence[tuple[int, int]] = (),
    most: int | None = None,
) -> Iterator[str]:
    """A sample's head, its media and its tokens; at most `most` pieces. `pictures`: by the digests of media."""
    which = f" (sample {row.sample} of {row.samples})" if row.samples > 1 else ""
    label = f"{row.label}: " if row.label else ""
    yield f"<p><b>{escape(label)}</b>{row.tokens:,} tokens, {row.trained:,} trained{which}</p>"
    if row.note:
        yield f'<p class="dim">{escape(row.note)}</p>'
    yield from (_figure(one, pictures) for one in row.media)
    pieces = [*row.pieces, *row.lost]
    if pieces:
        yield strip(pieces[:most], hidden)
    if most is not None and len(pieces) > most:
        yield f'<p class="dim">... and {len(pieces) - most:,} more pieces</p>'


def _figure(shown: ShownMedium, pictures: Mapping[str, Thumbnail]) -> str:
    """A medium by its picture, if it has one, its name and its sizes."""
    facts = shown.medium.facts
    picture = pictures.get(facts.digest, Thumbnail()) if facts is not None else Thumbnail()
    size = f'width="{picture.width}" height="{picture.height}"'
    drawn = f'<img src="{escape(picture.address)}" {size} alt="{escape(shown.name)}">' if picture.address else ""
    why = f"<br>not drawn: {escape(picture.why)}" if picture.why else ""
    told = f'<code>{escape(shown.name)}</code><br><span class="dim">{escape(shown.told)}</span>{why}'
    return f"<figure>{drawn}<figcaption>{told}</figcaption></figure>"
