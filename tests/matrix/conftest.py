"""`--method-results FILE`: what each cell of the matrix found, for scripts/generate_methods_doc.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--method-results", help="write what the matrix of methods found into this file")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--method-results", None) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Record(Path(config.getoption("--method-results"))), "method-record")


class _Record:
    """Cells tell what they found as the property `cell`."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.cells: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            found = dict(report.user_properties).get("cell")
            if found is not None:
                self.cells.append({**found, "passed": report.passed})

    def pytest_sessionfinish(self) -> None:
        cells = sorted(self.cells, key=lambda cell: (cell["method"], cell["precision"]))
        lines = ",\n".join(json.dumps(cell) for cell in cells)
        self.target.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
