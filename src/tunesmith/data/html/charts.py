"""Numbers as inline SVG. Colours come from the page's style, so that they follow its light and dark."""

from __future__ import annotations

from tunesmith.data.html.page import escape
from tunesmith.data.lint.statistics import Lengths

__all__ = ["histogram_svg"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 640, 150, 46, 22, 12


def histogram_svg(lengths: Lengths, cutoff_len: int | None = None) -> str:
    """Bars for how many rows are how long, with a line at cutoff_len where it lies among them."""
    if not lengths.counts:
        return ""
    most, end = max(lengths.counts), lengths.edges[-1]
    floor = _HEIGHT - _BOTTOM

    def x(value: float) -> float:
        return round(_LEFT + value / end * (_WIDTH - _LEFT - 8), 1)

    drawn = []
    for first, last, count in zip(lengths.edges, lengths.edges[1:], lengths.counts, strict=False):
        height = round(count / most * (floor - _TOP), 1)
        told = f"{first:,} to {last - 1:,} {lengths.unit}: {count:,} rows"
        if count:
            bar = f'x="{x(first)}" y="{floor - max(height, 1)}" width="{max(1, round(x(last) - x(first) - 1, 1))}"'
            drawn.append(f'<rect class="bar" {bar} height="{max(height, 1)}"><title>{escape(told)}</title></rect>')
    drawn.append(f'<line class="axis" x1="{_LEFT}" y1="{floor}" x2="{_WIDTH}" y2="{floor}"/>')
    for part in range(5):
        value = end * part // 4
        anchor = "end" if part == 4 else "middle" if part else "start"
        drawn.append(f'<text x="{x(value)}" y="{_HEIGHT - 6}" text-anchor="{anchor}">{value:,}</text>')
    drawn.append(f'<text x="{_LEFT - 6}" y="{_TOP + 8}" text-anchor="end">{most:,}</text>')
    if cutoff_len is not None and cutoff_len < end:
        at = x(cutoff_len)
        drawn.append(f'<line class="mark" x1="{at}" y1="{_TOP}" x2="{at}" y2="{floor}"/>')
        drawn.append(f'<text class="marked" x="{at + 4}" y="{_TOP + 8}">cutoff_len {cutoff_len:,}</text>')
    label = f"Rows by length in {lengths.unit}, {lengths.least:,} to {lengths.most:,}, median {lengths.median:,}"
    box = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}"'
    return f'<svg class="chart" {box} role="img" aria-label="{escape(label)}">{"".join(drawn)}</svg>'
