"""What was found, for people (a screen of text) and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from textwrap import wrap
from typing import Any

from tunesmith.data.lint.base import SEVERITIES, Finding
from tunesmith.data.lint.statistics import DatasetStatistics, Lengths

__all__ = ["LintReport", "percent", "places_text", "spark"]

_WIDTH = 80
_SHOWN = 4
"""Findings that are told in full on a screen."""
_KINDS = 4
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(slots=True)
class LintReport:
    stage: str
    cutoff_len: int | None
    datasets: list[DatasetStatistics] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    """The gravest first, of those the commonest."""
    skipped: list[str] = field(default_factory=list)
    """Checks that could not be made."""
    notices: list[str] = field(default_factory=list)
    stops: bool = False
    """A run with this config would stop because of its rows: such as cannot be used, or are too long."""

    def __post_init__(self) -> None:
        self.findings.sort(key=lambda one: (SEVERITIES.index(one.severity), -one.share, one.code))

    def counts(self) -> dict[str, int]:
        """Findings of each severity."""
        found = Counter(one.severity for one in self.findings)
        return {severity: found[severity] for severity in SEVERITIES}

    @property
    def leaks(self) -> bool:
        return any(one.leak for one in self.findings)

    def fails(self, *, strict: bool = False, on_leak: bool = False) -> bool:
        """Whether a gate should stop: always for rows that would stop a run; `strict`: for any error or warning."""
        serious = any(one.severity != "note" for one in self.findings)
        return self.stops or (strict and serious) or (on_leak and self.leaks)

    def to_dict(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "cutoff_len": self.cutoff_len,
            "counts": self.counts(),
            "datasets": [one.to_dict() for one in self.datasets],
            "findings": [_plain(one) for one in self.findings],
            "skipped": self.skipped,
            "notices": self.notices,
        }

    def lines(self) -> list[str]:
        """The report in at most 80 columns: the numbers, then what was found, the gravest first."""
        lines = [*self._table(), ""]
        for number, one in enumerate(self.findings[:_SHOWN]):
            lines += [*([""] if number else []), *_told(one)]
        for one in self.findings[_SHOWN:]:
            lines += _wrapped(f"{one.severity:<8}{one.code}  {_head(one)}", 8)
        if self.findings:
            lines.append("")
        return [*lines, *self._closing()]

    def _table(self) -> Iterator[str]:
        unit = self.datasets[0].lengths.unit if self.datasets else "tokens"
        yield f"{'dataset':<22}{'rows':>9}{'unfit':>7}{'tokens':>13}{'trained':>8}{'median':>7}{'p95':>7}{'max':>7}"
        for one in self.datasets:
            name = one.name if one.use == "train" else f"{one.name} (eval)"
            name = name if len(name) <= 21 else "..." + name[-18:]
            share = f"{one.trained / one.tokens:.0%}" if one.tokens else "-"
            lengths = one.lengths
            yield (
                f"{name:<22}{one.rows:>9,}{one.rows - one.usable:>7,}{f'{one.tokens:,}' if one.tokens else '-':>13}"
                f"{share:>8}{lengths.median:>7,}{lengths.p95:>7,}{lengths.most:>7,}"
            )
        for one in self.datasets[:3]:
            if one.usable:
                yield from _wrapped(self._about(one, unit, several=len(self.datasets) > 1), 2)
            for kind, media in one.media.items():
                yield from _wrapped(f"{f'{one.name}: ' if len(self.datasets) > 1 else ''}{media.told(kind)}", 2)

    def _about(self, one: DatasetStatistics, unit: str, *, several: bool) -> str:
        """A line on one dataset: how long its rows are, in which scripts, how its answers end."""
        parts = [f"{unit} {spark(one.lengths)} 0 to {one.lengths.edges[-1]:,}"]
        if one.longer_than_cutoff:
            parts.append(f"over cutoff_len: {one.longer_than_cutoff:,}")
        if one.scripts:
            parts.append(", ".join(f"{name} {percent(share)}" for name, share in list(one.scripts.items())[:3]))
        if one.unfinished is not None:
            parts.append(f"{percent(one.unfinished)} of answers end without a final sign")
        return (f"{one.name}: " if several else "") + "; ".join(parts)

    def _closing(self) -> Iterator[str]:
        for text in (*self.notices, *self.skipped):
            yield from _wrapped(f"note: {text}", 4)
        counted = [f"{count} {name}{'s' if count > 1 else ''}" for name, count in self.counts().items() if count]
        yield ", ".join(counted) if counted else "nothing was found"
        if codes := list(dict.fromkeys(one.code for one in self.findings)):
            yield f"more: tunesmith explain {codes[0]}; --html FILE shows the rows, --json tells all"


def _plain(one: Finding) -> dict[str, Any]:
    places = [
        {"place": str(place.origin), "row": place.row, "excerpt": place.excerpt, "note": place.note}
        for place in one.places
    ]
    return {**asdict(one), "share": one.share, "places": places}


def spark(lengths: Lengths) -> str:
    """A histogram in one line: a bar for each bin, a blank where nothing is."""
    most = max(lengths.counts, default=0)
    return "".join(" " if not n else _BARS[min(7, n * 8 // (most + 1))] for n in lengths.counts)


def _head(one: Finding) -> str:
    share = f" ({percent(one.share)})" if one.total > one.count else ""
    return f"{one.what}: {one.count:,} of {one.total:,} {one.unit}{share}"


def percent(share: float) -> str:
    if not share:
        return "0 %"
    if share < 0.001:
        return "under 0.1 %"
    return f"{share:.1%}".replace("%", " %") if share < 0.1 else f"{share:.0%}".replace("%", " %")


def _told(one: Finding) -> Iterator[str]:
    """A finding in full: what, where, an example, what to do."""
    yield from _wrapped(f"{one.severity:<8}{one.code}  {_head(one)}", 8)
    if one.kinds:
        shown = [f"{kind} ({count:,})" for kind, count in list(one.kinds.items())[:_KINDS]]
        more = len(one.kinds) - _KINDS
        yield from _wrapped(f"        which: {', '.join(shown)}{f' and {more} more' if more > 0 else ''}", 15)
    if one.places:
        yield from _wrapped(f"        where: {places_text(one)}", 15)
        first = one.places[0]
        if first.excerpt:
            text = first.excerpt
            yield f"        shows: {text if len(text) <= 64 else text[:61] + '...'}"
        if first.note:
            yield from _wrapped(f"               {first.note}", 15)
    yield from _wrapped(f"        fix:   {one.fix}", 15)


def places_text(one: Finding) -> str:
    """`rows.jsonl:3, :17 and 12 more`: a file's name once."""
    texts: list[str] = []
    last = ""
    for place in one.places:
        text, file = str(place.origin), place.origin.file
        texts.append(text.removeprefix(file).lstrip(", ") if file == last else text)
        last = file
    more = one.count - len(one.places)
    return ", ".join(texts) + (f" and {more:,} more" if more > 0 and one.unit == "rows" else "")


def _wrapped(text: str, indent: int) -> Sequence[str]:
    blank = text[: len(text) - len(text.lstrip())]
    return wrap(
        text.lstrip(),
        _WIDTH,
        initial_indent=blank,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
