"""The quick verbs never import the heavy packages. How long they take is measured by bench/startup.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "transformers", "datasets", "peft", "accelerate", "numpy", "pyarrow", "tokenizers", "matplotlib"}
# Not heavy, but a third of the time there is: typer would import pydantic to convert values (see cli/app.py).
SLOW = {"pydantic", "rich"}
PROBE = """\
import json, sys
from tunesmith.__main__ import main
code = main(sys.argv[1:])
print("\\n" + json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def modules_after(*words: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", PROBE, *words], capture_output=True, text=True, check=True)
    code, names = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    return set(names)


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["version"],
        ["explain", "E-CLI-001"],
        ["train", "--help"],
        ["models", "list"],
        ["models", "show", "gpt2"],
        ["stats", "lengths", "--help"],
    ],
    ids=" ".join,
)
def test_quick_verbs_import_nothing_heavy(words: list[str]) -> None:
    assert not modules_after(*words) & (HEAVY | SLOW)


def test_help_of_a_conversion_imports_nothing_heavy() -> None:
    assert not modules_after("convert", "llama-pro", "--help") & HEAVY


def test_config_check_imports_nothing_heavy(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("model_name_or_path: a/b\ndataset: x.jsonl\noutput_dir: out\ndo_train: true\n")
    assert not modules_after("config", "check", str(config)) & (HEAVY | SLOW)


@pytest.mark.slow
def test_the_queue_imports_nothing_heavy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path))
    config = tmp_path / "run.yaml"
    config.write_text("model_name_or_path: a/b\ndataset: x.jsonl\noutput_dir: out\ndo_train: true\n")
    assert not modules_after("queue", "add", str(config), "--no-start", "--retries", "0") & (HEAVY | SLOW)
    assert not modules_after("queue", "ls") & (HEAVY | SLOW)
    assert not modules_after("queue", "run", "--once") & (HEAVY | SLOW)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, tunesmith; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & (HEAVY | SLOW | {"typer", "yaml"})


def test_python_dash_m_runs_the_same() -> None:
    command = [sys.executable, "-m", "tunesmith", "trian"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert 'did you mean "train"?' in done.stderr
