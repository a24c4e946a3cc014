"""docs/evaluation.md against the code, and its examples executed."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tunesmith.evaluate.benchmarks import all_benchmarks
from tunesmith.evaluate.report import METRICS, QUESTIONS
from tunesmith.metrics.texts import BLEU_TOKENIZERS, score_texts

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")


def test_the_tasks_are_those_that_there_are() -> None:
    told = set(re.findall(r"`(\w+)`", PAGE.partition("| `task` |")[2].partition("\n\n")[0]))
    assert told == {f"{one.name}_{split}" for one in all_benchmarks().values() for split in one.splits}
    assert all(f"`{one.hub}`" in PAGE for one in all_benchmarks().values())
    assert [int(count) for count in re.findall(r"(\d+) subjects", PAGE)] == [57, 52, 67]


def test_the_figures_are_those_that_are_computed() -> None:
    told = set(re.findall(r"`predict_([\w-]+)`", PAGE.partition("| figure |")[2].partition("\n\n")[0]))
    found = score_texts(["a"], ["a"], 1)
    assert told == {name for name in found if not name.endswith(("_low", "_high"))}
    assert all(f"`{tokenizer}`" in PAGE for tokenizer in BLEU_TOKENIZERS.values())
    assert all(f"`{name}`" in PAGE for name in (METRICS, QUESTIONS))


@pytest.fixture
def workplace(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> Path:
    """Where the page's names mean something: a trained model's config, questions, rows to predict."""
    shutil.copy(tiny_data / "known_alpaca.json", tmp_path / "test.json")
    rows = json.loads((tmp_path / "test.json").read_text())[:4]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"model_name_or_path": str(tiny_model), "use_cpu": True, "max_new_tokens": 8}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    for benchmark in all_benchmarks().values():
        for split in benchmark.splits:
            folder = tmp_path / "data" / benchmark.name / split
            folder.mkdir(parents=True)
            with (folder / f"{benchmark.subjects[0].key}_{split}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([(f"{number} + 1?", "1", "2", "3", "4", "B") for number in range(3)])
    return tmp_path


@pytest.mark.slow
def test_the_examples_run(workplace: Path) -> None:
    commands = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    assert len(commands) == 5
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    for command in commands:
        if "lm_eval" in command:  # tests/unit/evaluate/test_harness.py has tasks of the harness
            continue
        words = shlex.split(command)
        assert words.pop(0) == "tunesmith"
        if "eval" in words and "task_dir" not in command:  # there is no network in a test
            words.append("task_dir=data")
        done = subprocess.run(
            [sys.executable, "-m", "tunesmith", *words],
            cwd=workplace,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Average" in done.stdout or "predict_exact_match" in done.stdout
    named = re.findall(r"^\| ((?:`[\w.]+`(?:, )?)+) \|", PAGE.partition("**Results.**")[2].partition("\n## ")[0], re.M)
    told = {name for cell in named for name in re.findall(r"`([\w.]+)`", cell)}
    assert {path.name for path in (workplace / "results" / "mmlu").iterdir()} == told
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=workplace, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
