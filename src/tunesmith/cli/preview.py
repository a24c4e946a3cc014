"""Samples on a screen: trained parts in colour, or between marks where there is none; and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.text import Text

    from tunesmith.data.preview import Preview, PreviewRow

__all__ = ["MARKS", "as_dict", "coloured", "head", "legend", "marked", "parts", "summary", "totals"]

MARKS = "⟦", "⟧"
TRAINED_STYLE, OTHER_STYLE = "bold green", "dim"
# Text of a dataset must not steer the terminal. Tabs and line ends are harmless.
_CONTROL = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"} | {0x7F: 0x2421}
_CONTROL |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


def head(row: PreviewRow) -> str:
    """Which row it is, from where, and its numbers."""
    which = f" (sample {row.sample} of {row.samples})" if row.samples > 1 else ""
    counts = f"{row.tokens:,} tokens, {row.trained:,} trained"
    note = f"\n  {row.note}" if row.note else ""
    return f"row {row.number}{which}: {row.origin}, {counts}{note}"


def parts(row: PreviewRow) -> Iterator[tuple[str, bool]]:
    """(text, is it trained?) of each run of pieces that are all trained, or all not."""
    for trained, run in groupby(row.pieces, key=lambda piece: piece.trained):
        yield "".join(piece.text for piece in run), trained


def marked(row: PreviewRow) -> str:
    """A sample as plain text with the trained parts between marks."""
    opening, closing = MARKS
    shown = ((text.translate(_CONTROL), trained) for text, trained in parts(row))
    return "".join(f"{opening}{text}{closing}" if trained else text for text, trained in shown)


def coloured(row: PreviewRow) -> Text:
    """A sample as rich text: trained parts stand out by colour and weight, the rest is dim."""
    from rich.text import Text

    text = Text()
    for part, trained in parts(row):
        text.append(part.translate(_CONTROL), TRAINED_STYLE if trained else OTHER_STYLE)
    return text


def legend() -> Text:
    from rich.text import Text

    return Text.assemble(("trained", TRAINED_STYLE), "  ", ("not trained", OTHER_STYLE))


def totals(rows: Sequence[PreviewRow]) -> dict[str, int]:
    """What is shown, in numbers; samples that training drops do not count."""
    kept = [row for row in rows if not row.dropped]
    return {
        "rows": len({row.number for row in rows}),
        "samples": len(kept),
        "tokens": sum(row.tokens for row in kept),
        "trained": sum(row.trained for row in kept),
    }


def summary(found: Preview, template: str | None) -> list[str]:
    """What is to say below the samples. `template`: its name, None where there is none."""
    shown = totals(found.rows)
    several = f" ({shown['samples']:,} samples)" if shown["samples"] > shown["rows"] else ""
    counts = f"{shown['tokens']:,} tokens, {shown['trained']:,} trained"
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
            "parts": [{"text": text, "trained": trained} for text, trained in parts(row)],
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
