"""What rows show that is no fault and worth saying: counted while they are read, told once at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tunesmith.core.types import Origin

__all__ = ["Notes"]


class Notes:
    """Counts of remarks, each with the first place, and plain tallies. Plain data: it travels between processes, and
    notes of parts of a dataset are merged in the order of its rows."""

    def __init__(self) -> None:
        self.remarks: dict[str, tuple[int, Origin]] = {}
        self.tallies: Counter[str] = Counter()
        """Numbers that a rule over all rows needs, such as how many labels are true."""

    def add(self, remark: str, origin: Origin) -> None:
        """One more row shows what the `remark` says."""
        count, first = self.remarks.get(remark, (0, origin))
        self.remarks[remark] = count + 1, first

    def say(self, remark: str, origin: Origin) -> None:
        """The `remark` holds for the dataset, first seen here; how often is not counted."""
        self.remarks.setdefault(remark, (0, origin))

    def merge(self, later: Notes) -> None:
        """Take in the notes of rows that come after these."""
        for remark, (count, origin) in later.remarks.items():
            before, first = self.remarks.get(remark, (0, origin))
            self.remarks[remark] = before + count, first
        self.tallies.update(later.tallies)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `from_dict` makes the notes again."""
        remarks = {remark: [count, asdict(first)] for remark, (count, first) in self.remarks.items()}
        return {"remarks": remarks, "tallies": dict(self.tallies)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Notes:
        made = cls()
        made.remarks = {remark: (count, Origin(**first)) for remark, (count, first) in values["remarks"].items()}
        made.tallies = Counter(values["tallies"])
        return made

    def lines(self) -> list[str]:
        """One sentence per remark."""
        return [f"{remark}{_counted(count)} (first: {first})" for remark, (count, first) in self.remarks.items()]


def _counted(count: int) -> str:
    return f": {count:,} {'row' if count == 1 else 'rows'}" if count else ""
