"""bench/serving.py: its tables, and that a run of it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench" / "serving.py"


def tables(path: Path) -> list[str]:
    command = [sys.executable, BENCH, "--table", path]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_tables_show_medians_and_what_is_more(tmp_path: Path) -> None:
    rows = [{"requests": 8, "tokens": 64, "engine": [90, 100, 95], "generate": [100, 80, 120]}]
    rows[0] |= {"engine_mb": 300.4, "generate_mb": 250.0}
    times = {"engine": [5.0, 6.0, 7.0], "generate": [4.0, 4.5, 9.0], "engine_first": [2.0], "generate_first": [1.0]}
    found = {"model": "smollm2", "dtype": "bfloat16", "batch": rows, "single": times}
    (tmp_path / "found.json").write_text(json.dumps(found))
    lines = tables(tmp_path / "found.json")
    batch = "| 8 requests of 64 tokens | 95.0 (90.0-100.0) | 100.0 (80.0-120.0) | 0.95 | 300 MB | 250 MB |"
    assert batch in lines
    assert "| 32 tokens | 6.0 (5.0-7.0) ms | 4.5 (4.0-9.0) ms | +1.5 ms |" in lines
    assert "| first token, 95th of 100 | 2.0 ms | 1.0 ms | +1.0 ms |" in lines


@pytest.mark.slow
def test_a_run_measures_both_ways(stories: Path, tmp_path: Path) -> None:
    assert stories.is_dir()
    keys = ["--model", str(stories), "--dtype", "float32", "--requests", "2", "--tokens", "4", "--repeats", "1"]
    command = [sys.executable, BENCH, *keys, "--threads", "1", "--json", tmp_path / "found.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["batch"][0]["engine"][0] > 0
    assert len(found["single"]["engine_first"]) == 19
