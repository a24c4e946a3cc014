"""The page about quantization says what the facts say."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]


def test_the_tables_are_those_of_the_facts() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "generate_quantization_doc.py"))
    text = (ROOT / "docs" / "quantization.md").read_text(encoding="utf-8")
    assert script["page"](text) == text, "run scripts/generate_quantization_doc.py"
