"""Samples on a screen: trained parts in colour, or between marks where there is none; and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.text import Text

    from tunesmith.data.preview import Piece, Preview, PreviewRow

__all__ = [
    "MARKS",
    "as_dict",
    "coloured",
    "head",
    "legend",
    "marked",
    "parts",
    "print_rows",
    "summary",
    "token_lines",
    "totals",
]

MARKS = "⟦", "⟧"
TRAINED_STYLE, OTHER_STYLE = "bold green", "dim"
_NOT_TRAINED = ("prompt", "system", "tool", "media", "history", "given", "weight", "template", "cut")
_STYLES = {"prompt": "cyan", "system": "magenta", "tool": "blue", "history": "yellow", "given": "yellow"}
_STYLES |= {"media": "bright_blue", "weight": "yellow", "cut": "red strike"}
# Text of a dataset must not steer the terminal. Tabs and line ends are harmless.
_CONTROL = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"} | {0x7F: 0x2421}
_CONTROL |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


def head(row: PreviewRow) -> str:
    """Which row it is, from where, its numbers, and a paragraph for each of its media."""
    which = f", {row.label}" if row.label else ""
    which += f" (sample {row.sample} of {row.samples})" if row.samples > 1 else ""
    counts = f"{row.tokens:,} tokens, {row.trained:,} trained"
    note = f"\n  {row.note}" if row.note else ""
    media = "".join(f"\n  {one.name.translate(_CONTROL)}\n    {one.told}" for one in row.media)
    return f"row {row.number}{which}: {row.origin}, {counts}{note}{media}"


def parts(row: PreviewRow) -> Iterator[tuple[str, bool]]:
    """(text, is it trained?) of each run of pieces that are all trained, or all not."""
    for trained, run in groupby(row.pieces, key=lambda piece: piece.trained):
        yield "".join(piece.text for piece in run), trained


def _alike(row: PreviewRow) -> Iterator[tuple[tuple[bool, str | None, float], Iterator[Piece]]]:
    """Runs of pieces that are alike in (trained, why not, weight)."""
    return groupby(row.pieces, key=lambda piece: (piece.trained, piece.why, piece.weight))


def marked(row: PreviewRow) -> str:
    """A sample as plain text with the trained parts between marks."""
    opening, closing = MARKS
    shown = ((text.translate(_CONTROL), trained) for text, trained in parts(row))
    return "".join(f"{opening}{text}{closing}" if trained else text for text, trained in shown)


def coloured(row: PreviewRow) -> Text:
    """A sample as rich text: trained parts stand out by colour and weight, the others tell by theirs why not."""
    from rich.text import Text

    text = Text()
    for style, run in groupby(row.pieces, key=_style):
        text.append("".join(piece.text for piece in run).translate(_CONTROL), style)
    return text


def _style(piece: Piece) -> str:
    return TRAINED_STYLE if piece.trained else _STYLES.get(piece.why or "", OTHER_STYLE)


def legend(rows: Sequence[PreviewRow]) -> Text:
    """The colours that `rows` have, with what they mean."""
    from rich.text import Text

    met = {piece.why for row in rows for piece in row.pieces}
    text = Text.assemble(("trained", TRAINED_STYLE), "   not trained:")
    for why in (why for why in _NOT_TRAINED if why in met):
        text.append(" ").append(why, _STYLES.get(why, OTHER_STYLE))
    return text


def token_lines(row: PreviewRow) -> Iterator[str]:
    """A line per piece: its ids, its text, whether it is trained and with which weight, else why not."""
    for piece in (*row.pieces, *row.lost):
        ids = f"{len(piece.ids):,} ids" if piece.why == "media" else " ".join(map(str, piece.ids))
        text = repr(piece.text)[1:-1] if piece.text.isprintable() else piece.text.encode("unicode_escape").decode()
        told = (
            f"trained{'' if piece.weight == 1 else f', weight {piece.weight:g}'}" if piece.trained else str(piece.why)
        )
        yield f"{ids:>12}  {text:<40}  {told}"


def print_rows(rows: Sequence[PreviewRow], *, in_colour: bool, tokens: bool) -> None:
    """The rows on standard output; with `tokens` token by token."""
    if tokens:
        for row in rows:
            print(f"{head(row)}")
            print("\n".join(token_lines(row)))
    elif in_colour:
        _print_coloured(rows)
    else:
        print(f"trained parts are between {MARKS[0]} and {MARKS[1]}")
        for row in rows:
            print(f"\n{head(row)}\n{marked(row)}")


def _print_coloured(rows: Sequence[PreviewRow]) -> None:
    from rich.console import Console

    # Soft wrap: the terminal breaks long lines where it must, and every blank stays what it is.
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    console.print(legend(rows))
    for row in rows:
        console.print(f"\n{head(row)}", style="bold")
        console.print(coloured(row))


def totals(rows: Sequence[PreviewRow]) -> dict[str, int]:
    """What is shown, in numbers; samples that training drops do not count."""
    kept = [row for row in rows if not row.dropped]
    media = [one for row in kept for one in row.media if not one.cut]
    return {
        "rows": len({row.number for row in rows}),
        "samples": len(kept),
        "tokens": sum(row.tokens for row in kept),
        "trained": sum(row.trained for row in kept),
        "media": len(media),
        "media_tokens": sum(one.tokens for one in media),
    }


def summary(found: Preview, template: str | None) -> list[str]:
    """What is to say below the samples. `template`: its name, None where there is none."""
    shown = totals(found.rows)
    several = f" ({shown['samples']:,} samples)" if shown["samples"] > shown["rows"] else ""
    media = f" ({shown['media_tokens']:,} of them for {shown['media']:,} media)" if shown["media"] else ""
    counts = f"{shown['tokens']:,} tokens{media}, {shown['trained']:,} trained"
    lines = [f"shown: {shown['rows']:,} of {found.total:,} rows{several}, {counts}"]
    if template:
        lines.append(f"template: {template}")
    for one in found.datasets:
        if details := list(one.details()):
            lines += [f"{one.name}: {one.rows:,} rows", *details]
    return [*lines, *(f"note: {notice}" for notice in found.notices)]


def as_dict(found: Preview, template: str | None) -> dict[str, Any]:
    """The same as plain types."""
    rows = [
        {
            "row": row.number,
            "sample": row.sample,
            "samples": row.samples,
            "place": str(row.origin),
            "tokens": row.tokens,
            "trained": row.trained,
            "note": row.note,
            "dropped": row.dropped,
            "label": row.label,
            "media": [one.to_dict() for one in row.media],
            "parts": [
                {"text": "".join(piece.text for piece in run), "trained": trained, "why": why, "weight": weight}
                for (trained, why, weight), run in _alike(row)
            ],
        }
        for row in found.rows
    ]
    datasets = [
        {"name": one.name, "use": one.use, "rows": one.rows, "dropped": dict(one.dropped)} for one in found.datasets
    ]
    return {
        "template": template,
        "rows": rows,
        "shown": totals(found.rows),
        "total_rows": found.total,
        "datasets": datasets,
        "notices": found.notices,
    }
