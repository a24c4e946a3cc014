"""bench/clients.py: its table, and that a run of it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench" / "clients.py"


def test_the_table_tells_errors_and_waits(tmp_path: Path) -> None:
    one = {"first_ms": [4.0, 5.0, 6.0], "seconds": 2.0, "tokens": 96, "errors": [], "memory_kb": [2048, 3072]}
    many = {"first_ms": [10.0, 20.0, 50.0], "seconds": 0.5, "tokens": 1000, "errors": ["cut"], "memory_kb": [4096]}
    found = {"model": "tiny", "clients": 64, "requests": 200, "tokens": 32, "alone": one, "together": many}
    (tmp_path / "found.json").write_text(json.dumps(found))
    command = [sys.executable, BENCH, "--table", tmp_path / "found.json"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[2:] == [
        "| 1 client, 3 requests | 0 | 5.0 ms | 6.0 ms | 6.0 ms | 1.2 | 48 | 2, 3 MB |",
        "| 64 clients, 4 requests | 1 | 20.0 ms | 50.0 ms | 50.0 ms | 2.5 | 2,000 | 4 MB |",
    ]


@pytest.mark.slow
def test_a_run_has_no_errors(stories: Path, tmp_path: Path) -> None:
    keys = ["--clients", "3", "--requests", "4", "--tokens", "4", "--model", str(stories)]
    command = [sys.executable, BENCH, *keys, "--json", tmp_path / "found.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["together"]["errors"] == []
    assert (len(found["together"]["first_ms"]), found["together"]["tokens"]) == (12, 48)
