"""docs/reliability.md shows the saved results, and every row of the matrix is explained."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "generate_reliability_doc.py"))


def test_the_page_shows_the_saved_results(script: dict[str, Any]) -> None:
    found = json.loads(script["RESULTS"].read_text(encoding="utf-8"))
    page = script["TARGET"].read_text(encoding="utf-8")
    assert script["page"](page, found) == page, "python scripts/generate_reliability_doc.py"
    assert found["rows"].keys() <= script["ROWS"].keys()


def test_every_row_has_tests_and_is_explained(script: dict[str, Any]) -> None:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    marked = {name for text in texts for name in re.findall(r'mark\.row\("(R\d+)"\)', text)}
    assert marked == script["ROWS"].keys()


def test_a_row_that_failed_does_not_look_as_if_it_held(script: dict[str, Any]) -> None:
    rows = {
        "R1": {"cases": 1200, "failed": [], "kinds": ["pt-full", "sft-lora"]},
        "R3": {"cases": 90, "failed": ["test_a", "test_b"], "kinds": []},
    }
    found = {"date": "2026-11-27", "seconds": 1500, "tests": 70, "of": 80, "rows": rows}
    table = script["table"](found).splitlines()
    assert table[0] == "2026-11-27: 70 of the 80 tests, 1,290 faults, in 25 minutes."
    shown = {line.split(" | ")[0].removeprefix("| "): line for line in table[4:]}
    assert shown["R1"].endswith("| 2 | 1,200 | none |")
    assert shown["R3"].endswith("| 1 | 90 | 2 |")
    assert shown["R2"].endswith("| | not run | |")
