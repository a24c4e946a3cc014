"""docs/methods.md: its tables are what the facts and the last run of the matrix say."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from tests.method_cases import CASES, PRECISIONS, declared

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def found():
    return json.loads((ROOT / "bench" / "results" / "methods.json").read_text("utf-8"))


def test_the_page_is_up_to_date(found):
    script = runpy.run_path(str(ROOT / "scripts" / "generate_methods_doc.py"))
    page = (ROOT / "docs" / "methods.md").read_text("utf-8")
    assert script["page"](page, found) == page, "python scripts/generate_methods_doc.py"


def test_every_declared_cell_was_run(found):
    cells = {(cell["method"], cell["precision"]) for cell in found if cell["passed"]}
    assert cells == {(name, precision) for name in CASES for precision in PRECISIONS if declared(name, precision)}
