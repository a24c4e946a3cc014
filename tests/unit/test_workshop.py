"""The developer's tools: the CI runner's summary, the demo's dataset, the committed test assets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "src" / "tunesmith" / "catalog" / "demo"
MOST_ASSET_BYTES = 2_000_000


def rows(name: str) -> list[list[dict[str, str]]]:
    return [json.loads(line)["messages"] for line in (DEMO / name).read_text(encoding="utf-8").splitlines()]


def test_demo_data_is_what_its_script_writes() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / "make_demo_data.py", "--check"], check=False)
    assert done.returncode == 0


def test_demo_rows_are_distinct_and_held_out_questions_are_unseen() -> None:
    train, held_out = rows("train.jsonl"), rows("heldout.jsonl")
    assert len(train) >= 200
    assert len(held_out) >= 40
    assert len({json.dumps(row) for row in train}) == len(train)
    seen = " ".join(message["content"] for row in train for message in row)
    assert [row[0]["content"] for row in held_out if row[0]["content"] in seen] == []


def test_demo_questions_are_taught_but_not_word_for_word_copied_into_the_prompt() -> None:
    questions = json.loads((DEMO / "questions.json").read_text(encoding="utf-8"))
    answers = " ".join(row[-1]["content"] for row in rows("train.jsonl"))
    assert len(questions) == 3
    for question in questions:
        for word in question["words"]:
            assert word in answers
            assert word not in question["ask"]


def test_tiny_assets_are_small() -> None:
    size = sum(path.stat().st_size for path in (ROOT / "tests" / "assets").rglob("*") if path.is_file())
    assert size < MOST_ASSET_BYTES


def fake_makefile(folder: Path, quick: str, slow: str) -> None:
    recipes = {"test": quick, "test-slow": slow}
    text = "".join(f"{name}:\n\t@{recipe}\n" for name, recipe in recipes.items())
    (folder / "Makefile").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("quick", "slow", "status", "last"),
    [
        ("echo '3 passed in 0.10s'", "echo '2 passed, 1 skipped in 0.20s'", 0, "5 passed, 1 skipped in "),
        ("echo '1 failed, 3 passed in 1.00s'; exit 1", "echo '2 passed in 0.20s'", 1, "1 failed, 5 passed in "),
        ("echo 'ruff: no'; exit 1", "echo '2 passed in 61.20s (0:01:01)'", 1, "2 passed, 1 errors in "),
    ],
)
def test_ci_runs_both_suites_and_ends_with_one_summary(
    tmp_path: Path, quick: str, slow: str, status: int, last: str
) -> None:
    fake_makefile(tmp_path, quick, slow)
    command = [sys.executable, ROOT / "scripts" / "ci.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert done.stdout.splitlines()[-1].startswith(last)
    assert "== make test-slow" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_tiny_model_is_what_its_script_makes() -> None:
    script = ROOT / "tests" / "assets" / "make_tiny_model.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_table_of_a_step_is_written_from_its_figures(tmp_path: Path) -> None:
    figures = {name: {"median": 0.02, "range": [0.01, 0.03]} for name in ("outside", "overhead", "wait", "counting")}
    figures["seconds"] = {"median": 1.25, "range": [1.0, 1.5]}
    (tmp_path / "loop.json").write_text(json.dumps({"small": figures}), encoding="utf-8")
    command = [sys.executable, ROOT / "bench" / "loop.py", "--table", tmp_path / "loop.json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    share = "2.00 % (1.00 %-3.00 %)"
    assert done.stdout.splitlines()[-1] == f"| small | 1.25 s | {share} | {share} | {share} | {share} |"
