"""Media of rows: each is decoded once, as training does later; what cannot be, and what all of them are like."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.types import Medium, Modality
from tunesmith.data.blocks import Fault
from tunesmith.data.lint.base import PLACES, Finding, LintRow, Place
from tunesmith.data.lint.redact import redact
from tunesmith.data.lint.texts import all_messages
from tunesmith.data.progress import Progress, shifted
from tunesmith.data.walk import Walk

if TYPE_CHECKING:
    from tunesmith.data.settling import Settle
    from tunesmith.media.limits import MediaLimits

__all__ = ["BadMedia", "Decoding", "MediaNumbers", "MediaStatistics", "Spread", "in_turn"]

_MOST_FILES = 1000
"""Files that a finding tells apart."""
_BLOCK = 16
"""Rows of which media are decoded between two signs of life."""


class Decoding:
    """Settles media and decodes each file once: some 100 bytes of memory for each different one."""

    def __init__(self, settle: Settle, limits: MediaLimits) -> None:
        self._settle, self._limits = settle, limits
        self._fine: set[bytes] = set()
        self._bad: dict[bytes, list[Problem]] = {}
        self.begun = False
        """Whether there are any."""

    def __call__(self, medium: Medium) -> Medium:
        """Raises DataError."""
        from tunesmith.media.sizes import read_medium

        self.begun = True
        settled = self._settle(medium)
        assert settled.facts is not None, "settled"
        key = settled.kind.encode() + bytes.fromhex(settled.facts.digest)
        if key in self._bad:
            raise DataError(self._bad[key])
        if key not in self._fine:
            try:
                read_medium(settled, self._limits)
            except DataError as error:
                self._bad[key] = error.problems
                raise
            self._fine.add(key)
        return settled


class BadMedia:
    """Findings of rows whose media cannot be used, by what is wrong, with the files."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Finding] = {}

    def add(self, fault: Fault) -> None:
        """Faults of other kinds are not for here."""
        if not fault.code.startswith("E-MEDIA-"):
            return
        told = fault.media or [("", Problem(fault.code, fault.told, got=fault.got, fix=fault.fix))]
        for key in dict.fromkeys((problem.code, problem.what) for _, problem in told):
            fix = next(one.fix for _, one in told if (one.code, one.what) == key)
            fix = fix or "mend these rows, or leave them out with on_bad_media: skip"
            finding = self._found.setdefault(key, Finding(*key[:1], "error", key[1], 0, 0, fix))
            finding.count += 1
            own = [(name, problem) for name, problem in told if (problem.code, problem.what) == key]
            for name, _ in own:
                if name and (name in finding.kinds or len(finding.kinds) < _MOST_FILES):
                    finding.kinds[name] = finding.kinds.get(name, 0) + 1
            if len(finding.places) < PLACES:
                shown = "; ".join(": ".join(filter(None, (name, problem.got))) for name, problem in own)
                finding.places.append(Place(-1, redact(shown), fault.origin))

    def findings(self, rows: int, *, stops: bool) -> Iterator[Finding]:
        for one in self._found.values():
            one.total, one.severity = rows, "error" if stops else "warning"
            one.kinds = dict(Counter(one.kinds).most_common())
            yield one


@dataclass(frozen=True, slots=True)
class Spread:
    """The least, the one in the middle, the most."""

    least: float
    median: float
    most: float

    def told(self, unit: str) -> str:
        if self.least == self.most:
            return f"{self.least:,.4g} {unit}"
        return f"{self.least:,.4g} to {self.most:,.4g} {unit} (median {self.median:,.4g})"


@dataclass(frozen=True, slots=True)
class MediaStatistics:
    """Media of one kind in one dataset: how many, how many different ones, the tokens that stand for them. `sizes`:
    width and height of the smallest, the middle and the largest one; of sounds none."""

    count: int
    different: int
    tokens: int
    sizes: tuple[tuple[int, int], ...] = ()
    frames: Spread | None = None
    seconds: Spread | None = None

    def told(self, kind: str) -> str:
        """`12 images (8 different), 32 x 32 to 640 x 480 pixels, 192 tokens`."""
        plural = "sounds" if kind == "audio" else f"{kind}s"
        parts = [f"{self.count:,} {plural if self.count > 1 else plural[:-1]} ({self.different:,} different)"]
        if self.sizes:
            small, middle, large = (f"{width:,} x {height:,}" for width, height in self.sizes)
            parts.append(
                f"{small} to {large} pixels, half of them up to {middle}" if small != large else f"{small} pixels"
            )
        for spread, unit in ((self.frames, "frames"), (self.seconds, "s")):
            if spread is not None:
                parts.append(spread.told(unit))
        if self.tokens:
            parts.append(f"{self.tokens:,} tokens")
        return ", ".join(parts)


@dataclass(slots=True)
class _Kind:
    digests: set[bytes] = field(default_factory=set)
    sides: array[int] = field(default_factory=lambda: array("q"))
    frames: array[int] = field(default_factory=lambda: array("q"))
    seconds: array[float] = field(default_factory=lambda: array("d"))
    tokens: int = 0


class MediaNumbers:
    """Gathers what `MediaStatistics` says, some 130 bytes a medium."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, Modality], _Kind] = {}

    def add(self, rows: Sequence[LintRow]) -> None:
        for row in rows:
            for medium in (one for message in all_messages(row.example) for one in message.media):
                if (facts := medium.facts) is not None:
                    kind = self._found.setdefault((row.dataset, medium.kind), _Kind())
                    kind.digests.add(bytes.fromhex(facts.digest))
                    kind.sides.extend((facts.width, facts.height))
                    kind.frames.append(facts.frames)
                    kind.seconds.append(facts.seconds)
            for placed in (one for sequence in row.sequences or () for one in sequence.media):
                self._found.setdefault((row.dataset, placed.medium.kind), _Kind()).tokens += placed.end - placed.start

    def of(self, dataset: int) -> dict[str, MediaStatistics]:
        """By kind; empty where the dataset has none."""
        mine = {kind: found for (number, kind), found in self._found.items() if number == dataset}
        return {kind: _statistics(kind, found) for kind, found in sorted(mine.items())}


def _statistics(kind: Modality, found: _Kind) -> MediaStatistics:
    sides = np.array(found.sides).reshape(-1, 2)
    order = np.argsort(sides.prod(1), kind="stable")
    picked = sides[order[[0, (len(order) - 1) // 2, -1]]].tolist()
    return MediaStatistics(
        len(found.frames),
        len(found.digests),
        found.tokens,
        () if kind == "audio" else tuple((width, height) for width, height in picked),
        _spread(found.frames) if kind == "video" else None,
        None if kind == "image" else _spread(found.seconds),
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(*(float(np.percentile(values, at)) for at in (0, 50, 100)))


def in_turn(walks: Sequence[Walk], notify: Progress | None, decoded: Sequence[Decoding | None]) -> Iterator[Walk]:
    """The walks, telling how far they are. Decoding takes long, so rows are then counted first, where reading does not
    tell how many there are."""
    total: int | None = None

    def told(done: int, expected: int | None) -> None:
        nonlocal total
        if expected is None and total is None and any(one is not None and one.begun for one in decoded):
            total = sum(1 for walk in walks for _ in walk.opened.rows())
        if notify is not None:
            notify(done, expected if expected is not None else total)

    before = 0
    for number, walk in enumerate(walks, 1):
        if notify is not None:
            walk.block, walk.notify = _BLOCK, shifted(told, before, number == len(walks))
        yield walk
        before += walk.report.rows
