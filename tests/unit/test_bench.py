"""bench/sft.py: its tables, what it complains about, and that its ways and its peers start from the same."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, BENCH / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sft(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BENCH / "sft.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def run(seconds: list[float], **changed: Any) -> dict[str, Any]:
    """One run of three steps, of which the first is not timed."""
    return {
        "seconds": seconds,
        "losses": [2.0, 1.5, 1.25],
        "norms": [4.0, 3.0, 2.5],
        "growth": 100.4,
        "trained_parameters": 8,
        "checkpointing": True,
        "threads": 2,
        "versions": {"transformers": "5.0", "llamafactory": "0.9"},
        **changed,
    }


TOKENS = [7, 30, 50]  # 40 a step on average, where time is taken


def test_help_tells_the_cases_and_the_peers() -> None:
    done = sft("--help")
    assert done.returncode == 0, done.stderr
    for word in ("small-lora", "short-rows", "packed", "llamafactory", "trl-padding-free", "ms-swift", "--table"):
        assert word in done.stdout


def test_one_run_is_no_runs() -> None:
    table = load("sft_table")
    found = {"small-full": table.summarize({"flat": [run([2.0])]}, TOKENS)}
    assert "| seconds a step, 1 run |" in table.markdown(found)


def test_a_peer_that_nobody_knows_is_refused() -> None:
    done = sft("--peer", "axolotl=python")
    assert done.returncode == 2
    assert "axolotl=python: not NAME=PYTHON with a name of llamafactory, trl" in done.stderr


def test_a_table_of_several_files_is_of_all_their_runs(tmp_path: Path) -> None:
    """Medians of three runs by hand: 2 s of (1, 2, 4), and 5 s of (3, 5, 6); so 20 tokens a second, and 8."""
    table = load("sft_table")
    files = []
    for number, (ours, theirs) in enumerate([(1.0, 5.0), (2.0, 3.0), (4.0, 6.0)]):
        runs = {"flat": [run([ours, ours])], "llamafactory": [run([theirs, theirs], growth=250.6)]}
        files.append(tmp_path / f"{number}.json")
        files[-1].write_text(json.dumps({"small-lora": table.summarize(runs, TOKENS)}))
    done = sft("--table", *files, "--json", tmp_path / "all.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "| small-lora, 29 tokens a step | seconds a step, 3 runs | tokens/s | MB grown | time | MB |",
        "|---|---|---|---|---|---|",
        "| Tunesmith | 2.00 (1.00-4.00) | 20 | 100 | 1.00x | 1.00x |",
        "| LlamaFactory 0.9, transformers 5.0 | 5.00 (3.00-6.00) | 8 | 251 | 2.50x | 2.51x |",
        "",
        "| loss (gradient norm) | step 1 | step 2 | step 3 |",
        "|---|---|---|---|",
        "| Tunesmith | 2.00000 (4.00000) | 1.50000 (3.00000) | 1.25000 (2.50000) |",
        "| LlamaFactory 0.9, transformers 5.0 | 2.00000 (4.00000) | 1.50000 (3.00000) | 1.25000 (2.50000) |",
    ]
    saved = json.loads((tmp_path / "all.json").read_text())
    assert saved["small-lora"]["llamafactory"]["times_as_fast"] == 0.4
    assert len(saved["small-lora"]["flat"]["runs"]) == 3


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({}, None),
        ({"losses": [2.0, 1.5, 1.25001]}, None),  # 8e-6 apart
        ({"losses": [2.0, 1.5, 1.2501]}, "losses are 8.0e-05 apart from those of flat"),
        ({"norms": [4.0, 3.003, 2.5]}, "norms are 1.0e-03 apart from those of flat"),
        ({"trained_parameters": 9}, "trained_parameters is not 8, as it is in the first way"),
        ({"checkpointing": False}, "checkpointing is not True, as it is in the first way"),
    ],
)
def test_what_was_computed_otherwise_is_complained_about(changed: dict[str, Any], complaint: str | None) -> None:
    table = load("sft_table")
    found = {"small-full": table.summarize({"flat": [run([1.0])], "trl": [run([1.0], **changed)]}, TOKENS)}
    assert list(table.complaints(found)) == ([f"small-full, trl: {complaint}"] if complaint else [])


def test_the_page_shows_the_saved_results() -> None:
    saved = json.loads((BENCH / "results" / "fine_tuning.json").read_text(encoding="utf-8"))
    table = load("sft_table")
    assert list(table.complaints(saved)) == []
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert table.replace_tables(page, table.markdown(saved)) == page, "--table bench/results/fine_tuning.json --page"
    assert table.replace_tables(page, "| other |") != page


def test_packs_hold_the_rows_of_a_step_in_the_shortest_rows_that_do() -> None:
    """Packs of 60: 60 | 55 | 41 | 30 + 25, and 20 finds no place, as 41 + 20 = 61."""
    keys = load("sft_inputs").packing_keys([20, 30, 41, 60, 55, 25])
    assert keys == {"packing": True, "cutoff_len": 61, "per_device_train_batch_size": 4}


def test_what_runs_in_a_peers_environment_imports_nothing_of_ours() -> None:
    for path in (BENCH / "peers").glob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
        names += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        assert [name for name in names if (name or "").startswith("tunesmith")] == [], path.name


@pytest.mark.slow
def test_padded_flat_and_packed_runs_of_the_same_rows_agree(tmp_path: Path) -> None:
    """The script itself complains where they do not; rows are made of words where the assets are not at hand."""
    options = ["--cases", "tiny", "--ways", "padded,flat,packed", "--repeats", "1", "--steps", "2"]
    done = sft(*options, "--json", tmp_path / "found.json", TUNESMITH_ASSETS=str(tmp_path / "none"))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())["tiny"]
    assert list(found) == ["padded", "flat", "packed"]
    assert all(len(one["losses"]) == 2 and one["growth"] > 0 for one in found.values())
    assert found["flat"]["losses"][0] != found["flat"]["losses"][1]


@pytest.mark.slow
def test_the_bench_of_gpus_can_be_tried_out_on_a_cpu(tmp_path: Path) -> None:
    options = ["--shapes", "tiny", "--device", "cpu", "--batch", "2", "--cutoff", "256", "--steps", "2"]
    command = [sys.executable, BENCH / "gpu.py", *options, "--repeats", "1", "--json", tmp_path / "found.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())["tiny"]
    assert list(found) == ["padded", "flat"]
    assert found["flat"]["attention"] == "flat batches, varlen"
    for name, apart in (("loss", 2e-3), ("norm", 5e-3)):  # in bfloat16
        assert found["flat"][name] == pytest.approx(found["padded"][name], rel=apart)
    assert all(one["tokens_per_second"] > 0 and one["peak_gib"] > 0 for one in found.values())
