"""docs/tools.md tells of every dialect what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from tunesmith.render.tools import DIALECTS, get_dialect

PAGE = (Path(__file__).resolve().parents[4] / "docs" / "tools.md").read_text(encoding="utf-8")


def test_the_page_lists_every_dialect_with_its_refusals() -> None:
    rows = re.findall(r"^\| (\w+) \| .+? \| ([\d.]+)% \| (\d+) \| (yes|no) \| (yes|no) \|$", PAGE, re.MULTILINE)
    assert [row[0] for row in rows] == sorted(DIALECTS)
    assert all(float(row[1]) >= 90 for row in rows)
    refusals = dict(re.findall(r"^- \*\*(\w+)\*\*: (.*)$", PAGE, re.MULTILINE))
    for name in DIALECTS:
        dialect = get_dialect(name)
        assert refusals[name] == ("; ".join(dialect.refuses) or "nothing"), "run scripts/generate_tools_doc.py"
        row = next(row for row in rows if row[0] == name)
        assert (row[3], row[4]) == ("no" if dialect.max_calls == 1 else "yes", "yes" if dialect.takes_content else "no")
