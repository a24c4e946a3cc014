"""The section "Formats" of docs/data.md lists what the formats read."""

from __future__ import annotations

import re
from pathlib import Path

from tunesmith.data.formats import FORMATS
from tunesmith.data.formats.messages import MESSAGE_KEYS, PARTS, ROLES

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("\n## Formats\n")[2].partition("\n## ")[0]


def rows(header: str) -> list[list[str]]:
    """The cells of the table that begins with this header."""
    table = SECTION.partition(f"| {header} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


def words(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_formats_with_their_columns_and_stages():
    told = {words(name)[0]: (columns, words(stages)) for name, columns, stages in rows("format")}
    assert set(told) == set(FORMATS)
    for name, (columns, stages) in told.items():
        format_class = FORMATS.get(name)
        assert dict(re.findall(r"(\w+): `(\w+)`", columns)) == dict(format_class.default_columns)
        assert stages == [stage for stage in format_class.needed if stage != "prompt"]


def test_meanings_of_columns():
    told = {word for meaning, _holds in rows("meaning") for word in words(meaning)}
    assert told == {meaning for name in FORMATS for meaning in FORMATS.get(name).default_columns}


def test_roles_parts_and_keys_of_messages():
    assert [word for _role, known in rows("role") for word in words(known)] == list(ROLES)
    assert words(SECTION.partition("of the types ")[2].partition(".")[0]) == list(PARTS)
    assert {word for key, _means in rows("key") for word in words(key)} == set(MESSAGE_KEYS)
