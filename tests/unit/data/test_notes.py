"""Remarks are counted, keep their first place, and can be gathered from parts."""

from __future__ import annotations

from tunesmith.core.types import Origin
from tunesmith.data.notes import Notes


def notes(*rows: int) -> Notes:
    found = Notes()
    for row in rows:
        found.add("odd", Origin("x.jsonl", row, row + 1))
        found.tallies["seen"] += 1
    return found


def test_remarks_of_parts_are_those_of_the_whole():
    whole, part = notes(3, 5, 9), notes(3)
    part.merge(notes(5, 9))
    assert part.lines() == whole.lines() == ["odd: 3 rows (first: x.jsonl:4)"]
    assert part.tallies == whole.tallies == {"seen": 3}


def test_what_is_only_said_has_no_count():
    found = Notes()
    found.say("all", Origin("x.parquet", 0))
    found.say("all", Origin("x.parquet", 7))
    found.merge(found)
    assert found.lines() == ["all (first: x.parquet, row 0)"]
