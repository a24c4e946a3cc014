"""docs/objectives.md: its tables are what the facts of losses and the witnesses of tests say."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_up_to_date() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "generate_objectives_doc.py"))
    page = (ROOT / "docs" / "objectives.md").read_text("utf-8")
    assert script["page"](page) == page, "python scripts/generate_objectives_doc.py"
