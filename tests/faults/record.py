"""A plugin of pytest: which row of the fault matrix each test belongs to, and what every row found.

    pytest -p tests.faults.record -m row --fault-results FILE
    pytest -p tests.faults.record -m row --fault-results FILE --fault-again TESTS...

The second form is for tests that had failed, and for new ones: what they find now is added to what FILE says.
Tests anywhere say `@pytest.mark.row("R1")`. How many faults one tries, if not one, it notes as the property `cases`;
the kind of run is its parameter `kind`. `scripts/generate_reliability_doc.py` reads the file.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-results", help="write what the rows of the fault matrix found into this file")
    parser.addoption("--fault-again", action="store_true", help="add to what that file says: failed and new tests")


def pytest_configure(config: pytest.Config) -> None:
    """Reports of all workers come to the one process that has no number of a worker."""
    if config.getoption("--fault-results") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Record(config), "fault-record")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: Any = yield
    row = item.get_closest_marker("row")
    if row is not None and report.when == "teardown":
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        report.user_properties += [("row", row.args[0]), ("kind", parameters.get("kind", ""))]
    return report


class Record:
    """Counts the cases of each row, and tells how far the suite is."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.begun = time.monotonic()
        self.done = self.left_out = 0
        self.failed: set[str] = set()
        self.new = 0
        target = Path(config.getoption("--fault-results"))
        self.earlier = json.loads(target.read_text("utf-8")) if config.getoption("--fault-again") else None
        self.rows: dict[str, dict[str, Any]] = self.earlier["rows"] if self.earlier else {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self.failed.add(report.nodeid)
            self._write(f" failed: {report.nodeid}")
        if report.when != "teardown":
            return
        self.done += 1
        told = dict(report.user_properties)
        if "row" in told:
            row = self.rows.setdefault(told["row"], {"cases": 0, "failed": [], "kinds": []})
            self._note(row, report.nodeid, told)
        self._tell()

    def _note(self, row: dict[str, Any], nodeid: str, told: dict[str, Any]) -> None:
        name = nodeid.partition("@")[0]
        if name in row["failed"]:  # before
            row["failed"].remove(name)
        else:
            row["cases"] += told.get("cases", 1)
            self.new += 1
        row["failed"] += [name] if nodeid in self.failed else []
        row["kinds"] = sorted({*row["kinds"], *filter(None, [told["kind"]])})

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self.left_out += sum(item.get_closest_marker("row") is not None for item in items)

    @property
    def total(self) -> int:
        reporter: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        return int(reporter._session.testscollected)

    def _tell(self) -> None:
        """Every tenth test: how many are done, and how long the rest takes at this pace."""
        if self.done % 10 == 0:
            passed = time.monotonic() - self.begun
            left = passed / self.done * (self.total - self.done)
            state = f"{self.done}/{self.total}, {len(self.failed)} failed"
            self._write(f" {state}, {passed:.0f} s, about {left:.0f} s to go")

    def _write(self, text: str) -> None:
        reporter: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        reporter.write_line(text)

    def pytest_sessionfinish(self) -> None:
        seconds = round(time.monotonic() - self.begun)
        rows = dict(sorted(self.rows.items(), key=lambda item: int(item[0].removeprefix("R"))))
        found: dict[str, Any] = {
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "seconds": seconds,
            "tests": self.done,
            "of": self.total + self.left_out,
            "rows": rows,
        }
        if self.earlier is not None:
            again = self.earlier.get("again", 0) + self.done - self.new
            found |= {name: self.earlier[name] for name in ("date", "seconds")} | {"again": again}
            found |= {name: self.earlier[name] + self.new for name in ("tests", "of")}
        target = Path(self.config.getoption("--fault-results"))
        target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
