"""What became of the data: rows in, dropped and why, cut and where, samples, tokens; for people and as a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from tunesmith.core.types import Origin
from tunesmith.data.bad_rows import MOST_REASONS, OTHER

__all__ = ["PLACES", "Cuts", "DataReport", "DatasetReport", "SplitReport"]

_WIDTH = 80
PLACES = 3


@dataclass(slots=True)
class Cuts:
    """Samples that cutoff_len made shorter, of one kind, with the first places."""

    samples: int = 0
    turns: int = 0
    """Answers that are gone with what was cut off."""
    places: list[str] = field(default_factory=list)

    def add(self, origin: Origin, turns: int = 0) -> None:
        self.samples += 1
        self.turns += turns
        if len(self.places) < PLACES:
            self.places.append(str(origin))


@dataclass(slots=True)
class DatasetReport:
    """One dataset, from rows to samples. `kept` counts the rows that gave at least one sample; a pair gives two."""

    name: str
    use: str
    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    dropped_places: dict[str, list[str]] = field(default_factory=dict)
    kept: int = 0
    samples: int = 0
    tokens: int = 0
    trained: int = 0
    turns_dropped: Cuts = field(default_factory=Cuts)
    """Later turns that did not fit were left out; the last one kept is whole."""
    answers_cut: Cuts = field(default_factory=Cuts)
    """Not even the first answer fitted: its start is trained, its end and stop are gone."""
    split: Cuts = field(default_factory=Cuts)
    """Too long, and made into several samples."""
    histogram: list[str] = field(default_factory=list)
    """Lines with the lengths of all samples, where some were too long."""

    def drop(self, reason: str, origin: Origin | None = None) -> None:
        if len(self.dropped) >= MOST_REASONS and reason not in self.dropped:
            reason = OTHER
        self.dropped[reason] += 1
        places = self.dropped_places.setdefault(reason, [])
        if origin is not None and len(places) < PLACES:
            places.append(str(origin))

    def add(self, later: DatasetReport) -> None:
        """Take in the report of rows of the same dataset that come after these; the histogram stays that of the first
        that had one."""
        for name in ("rows", "kept", "samples", "tokens", "trained"):
            setattr(self, name, getattr(self, name) + getattr(later, name))
        self.dropped.update(later.dropped)
        for reason, places in later.dropped_places.items():
            known = self.dropped_places.setdefault(reason, [])
            known += places[: PLACES - len(known)]
        for mine, more in (
            (self.turns_dropped, later.turns_dropped),
            (self.answers_cut, later.answers_cut),
            (self.split, later.split),
        ):
            mine.samples += more.samples
            mine.turns += more.turns
            mine.places += more.places[: PLACES - len(mine.places)]
        self.histogram = self.histogram or later.histogram

    def details(self) -> Iterator[str]:
        """What was lost and why, one line each."""
        for reason, number in self.dropped.most_common():
            yield f"  dropped {number:,}: {reason}{_first(self.dropped_places.get(reason, []))}"
        if (cuts := self.turns_dropped).samples:
            what = f"{cuts.turns:,} later answers left out to fit cutoff_len"
            yield f"  shortened {cuts.samples:,}: {what}{_first(cuts.places)}"
        if (cuts := self.answers_cut).samples:
            yield f"  cut {cuts.samples:,}: the end of the text does not fit cutoff_len{_first(cuts.places)}"
        if (cuts := self.split).samples:
            yield f"  split {cuts.samples:,}: too long for cutoff_len, now several samples{_first(cuts.places)}"
        yield from ("  " + line for line in self.histogram)


@dataclass(slots=True)
class SplitReport:
    """What training or evaluation reads, after mixing, splitting and packing. `samples`: what one index gives, so a
    pack or a pair is one. `longest`: of a sequence or a pack."""

    name: str
    samples: int
    tokens: int
    trained: int
    longest: int
    pairs: int = 0

    @property
    def counted(self) -> str:
        """How much it is, in words."""
        if not self.pairs:
            return f"{self.samples:,} samples"
        return f"{self.pairs:,} pairs" + (f" in {self.samples:,} packs" if self.pairs != self.samples else "")


@dataclass(slots=True)
class DataReport:
    datasets: list[DatasetReport] = field(default_factory=list)
    splits: list[SplitReport] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    encoders: list[str] = field(default_factory=list)
    """Libraries that turned text into ids."""
    lengths: list[dict[str, Any]] = field(default_factory=list)
    """What became of samples longer than cutoff_len, per dataset, with a histogram of all lengths."""

    def lines(self) -> list[str]:
        """The report for people, at most 80 columns wide: what the user should know, then the numbers."""
        head = f"{'dataset':<28}{'rows':>9}{'dropped':>9}{'kept':>9}{'samples':>9}{'tokens':>15}"
        lines = [f"note: {notice}" for notice in self.notices]
        lines.append(head)
        for one in self.datasets:
            name = one.name if one.use == "train" else f"{one.name} ({one.use})"
            numbers = (one.rows, sum(one.dropped.values()), one.kept, one.samples)
            columns = "".join(f"{number:>9,}" for number in numbers)
            lines.append(f"{_tail(name, 27):<28}{columns}{one.tokens:>15,}")
            lines += one.details()
        for split in self.splits:
            lines.append(
                f"{split.name}: {split.counted}, {split.tokens:,} tokens, "
                f"{split.trained:,} trained, longest {split.longest:,}"
            )
        return [line for text in lines for line in _wrap(text)]

    @property
    def total(self) -> dict[str, int]:
        """Numbers of all datasets together."""
        keys = ("rows", "kept", "samples", "tokens", "trained")
        found: dict[str, int] = {key: sum(getattr(one, key) for one in self.datasets) for key in keys}
        return found | {"dropped": sum(one.dropped.total() for one in self.datasets)}

    def to_dict(self) -> dict[str, Any]:
        """The whole report as plain types, with totals; saved beside the run."""
        datasets = []
        for one in self.datasets:
            values = asdict(one)
            values["dropped"] = {
                reason: {"rows": number, "first": one.dropped_places.get(reason, [])}
                for reason, number in one.dropped.items()
            }
            del values["dropped_places"]
            datasets.append(values)
        return {
            "datasets": datasets,
            "splits": [_without_pairs(asdict(split)) for split in self.splits],
            "total": self.total,
            "notices": list(self.notices),
            "encoders": list(self.encoders),
            "lengths": list(self.lengths),
        }


def _without_pairs(split: dict[str, Any]) -> dict[str, Any]:
    """Where there are none, nothing is said of them."""
    return {key: value for key, value in split.items() if key != "pairs" or value}


def _first(places: list[str]) -> str:
    return f" (first: {places[0]})" if places else ""


def _tail(text: str, width: int) -> str:
    return text if len(text) <= width else "..." + text[3 - width :]


def _wrap(text: str) -> list[str]:
    """Lines of at most `_WIDTH` characters, cut at blanks where there are any; what follows is set in."""
    lines = []
    while len(text) > _WIDTH:
        cut = text.rfind(" ", 5, _WIDTH + 1)
        cut = cut if cut > 5 else _WIDTH
        lines.append(text[:cut])
        text = "    " + text[cut:].lstrip()
    return [*lines, text]
