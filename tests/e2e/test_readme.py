"""What the README shows is executed: its commands in their order, its config, its Python, on the tiny model."""

from __future__ import annotations

import io
import json
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith import load_config, train
from tunesmith.__main__ import main
from tunesmith.core.log import get_logger

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
VERBS_OF_USE = ["init", "config", "data", "train", "chat", "export"]


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """The words behind `tunesmith` on every line of the shell blocks, comments left out."""
    lines = [shlex.split(line, comments=True) for block in blocks("bash") for line in block.splitlines()]
    return [words[1:] for words in lines if words and words[0] == "tunesmith"]


@pytest.fixture
def workplace(
    tmp_path: Path, tiny_model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, torch_one_thread: None
) -> Path:
    """An empty folder with rows.jsonl, and the tiny model under the name that the README uses."""
    shutil.copytree(tiny_model, tmp_path / MODEL)
    shutil.copy(tiny_data / "new_openai.jsonl", tmp_path / "rows.jsonl")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tunesmith(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], str]:
    """Run the command line in this process, with one question on standard input, and return standard output."""
    logger = get_logger()
    monkeypatch.setattr(logger, "handlers", list(logger.handlers))
    monkeypatch.setattr(logger, "propagate", logger.propagate)

    def run(words: list[str]) -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO("Who are you?\n"))
        code = main(words)
        captured = capsys.readouterr()
        assert code == 0, f"tunesmith {shlex.join(words)}\n{captured.out}{captured.err}"
        return captured.out

    return run


def test_every_verb_of_use_is_shown() -> None:
    assert [words[0] for words in commands()] == VERBS_OF_USE


def test_commands_and_python_run_in_their_order(
    workplace: Path, tunesmith: Callable[[list[str]], str], capsys: pytest.CaptureFixture[str]
) -> None:
    printed = {words[0]: tunesmith(words) for words in commands()}
    assert printed["config"].startswith("ok: run.yaml")
    assert "⟦" in printed["data"]
    assert printed["train"].startswith("saved: saves/")
    assert printed["chat"].strip()
    assert printed["export"] == "saved: merged\n"
    assert (workplace / "merged" / "model.safetensors").is_file()

    (program,) = blocks("python")
    (workplace / "program.py").write_text(program, encoding="utf-8")
    found = runpy.run_path("program.py")
    assert found["result"].output_dir == Path("saves/second")
    assert (workplace / "saves" / "second" / "adapter_model.safetensors").is_file()
    assert "saves/second" in capsys.readouterr().out


def test_the_config_is_one(workplace: Path) -> None:
    (text,) = blocks("yaml")
    Path("shown.yaml").write_text(text, encoding="utf-8")
    config = load_config("shown.yaml")
    assert config.warnings == ()
    assert config.data.dataset == ("rows.jsonl",)
    assert (config.train.output_dir, config.method.finetuning_type) == ("saves/first", "lora")


def test_the_override_in_a_comment_is_one(workplace: Path) -> None:
    (change,) = re.findall(r"or: tunesmith train run.yaml (\S+)$", README, re.MULTILINE)
    assert load_config({"model_name_or_path": "m", "dataset": "d", "output_dir": "o"}, [change])


@pytest.mark.slow
def test_the_row_with_an_image_is_one(workplace: Path, seeing_model: Path) -> None:
    (row,) = blocks("json")
    Path("seen.jsonl").write_text(row, encoding="utf-8")
    shutil.copy(ROOT / "examples" / "data" / "pictures" / "red_circle.png", workplace)
    found = train(
        {
            "model_name_or_path": str(seeing_model),
            "dataset": "seen.jsonl",
            "max_steps": 1,
            "output_dir": "seen",
            "use_cpu": True,
        }
    )
    assert json.loads(Path("seen/data_report.json").read_text(encoding="utf-8"))["total"]["dropped"] == 0
    assert found.metrics["train_loss"] > 0
