"""Writes the kinds of adapters, and what the matrix of methods found, into docs/methods.md.

make test-methods
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "methods.md"
RESULTS = ROOT / "bench" / "results" / "methods.json"
sys.path.insert(0, str(ROOT))

from tests.method_cases import CASES, PRECISIONS, declared  # noqa: E402
from tunesmith.config.tuners import TUNERS, Tuner  # noqa: E402

_PLACES = {
    "linear": "linear layers",
    "own": "what PEFT finds",
    "embeds": "a prompt of embeddings",
    "cache": "a prefix of keys and values",
}


def page(text: str, cells: list[dict[str, Any]]) -> str:
    """The page with both tables as they are to be."""
    return _between(_between(text, "kinds", kinds()), "matrix", matrix(cells))


def _between(text: str, name: str, table: str) -> str:
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    return re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n{table}\n{end}", text, flags=re.DOTALL)


def kinds() -> str:
    rows = ["| `peft_type` | goes on | merges | has to be given in `peft_settings` |", "|---|---|---|---|"]
    rows += [_kind(name, tuner) for name, tuner in sorted(TUNERS.items()) if tuner.refused is None]
    refused = [f"- `{name}`: {tuner.refused}." for name, tuner in sorted(TUNERS.items()) if tuner.refused]
    return "\n".join([*rows, "", "Not by this way:", "", *refused])


def _kind(name: str, tuner: Tuner) -> str:
    needs = ", ".join(f"`{one}`" for one in tuner.needs)
    package = f" (needs {tuner.package})" if tuner.package else ""
    return f"| `{name}`{package} | {_PLACES[tuner.places]} | {'yes' if tuner.merges else 'no'} | {needs} |"


def matrix(cells: list[dict[str, Any]]) -> str:
    found = {(cell["method"], cell["precision"]): cell for cell in cells}
    rows = ["| method | " + " | ".join(PRECISIONS) + " |", "|---" * (len(PRECISIONS) + 1) + "|"]
    for name, case in CASES.items():
        columns = [_cell(found.get((name, precision)), declared(name, precision)) for precision in PRECISIONS]
        rows.append(f"| {name} | " + " | ".join(columns) + " |")
        assert not case.bound or case.why
    notes = [f"- {name}: {_bounds(case.bound)}; {case.why}." for name, case in CASES.items() if case.bound]
    return "\n".join([*rows, "", "Where `reload` may be more than 1e-4:", "", *notes])


def _bounds(bound: dict[str, float]) -> str:
    return ", ".join(f"{precision} at most {value:g}" for precision, value in bound.items())


def _cell(cell: dict[str, Any] | None, possible: bool) -> str:
    if not possible:
        return "-"
    if cell is None:
        return "not run"
    assert cell["passed"], f"{cell['method']} in {cell['precision']} failed"
    before, after = cell["loss"]
    text = f"loss {before:.2f} to {after:.2f}, reload {_number(cell['reload'])}"
    return text + (f", merged {_number(cell['merge'])}" if "merge" in cell else "")


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.0e}"


if __name__ == "__main__":
    TARGET.write_text(page(TARGET.read_text("utf-8"), json.loads(RESULTS.read_text("utf-8"))), encoding="utf-8")
    print(f"wrote {TARGET}")
