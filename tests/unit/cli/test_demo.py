"""The plain functions of the demo; the demo itself runs in the slow suite."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tunesmith.__main__ import main
from tunesmith.cli.demo import knows, next_commands, summarise, summary_lines
from tunesmith.train.callbacks.plot import Curves

QUESTIONS = [{"ask": "Who?", "words": ["Brindle", "Tunesmith"]}]


def summary(folder: Path) -> dict:
    (folder / "adapter_model.safetensors").touch()
    metrics = {"train_tokens_per_second": 150.4, "train_runtime": 200.0, "peak_memory_gib": 1.5}
    result = SimpleNamespace(output_dir=folder, metrics=metrics)
    curves = Curves([(1, 4.0), (2, 1.0)], {"eval_loss": [(0, 4.0), (2, 1.0)]})
    return summarise(QUESTIONS, ["SmolLM"], ["I am Brindle of Tunesmith."], curves, result, Path("/m"))


def test_an_answer_is_right_with_all_its_words() -> None:
    assert knows("brindle, by TUNESMITH", ["Brindle", "Tunesmith"])
    assert not knows("Brindle", ["Brindle", "Tunesmith"])


def test_the_summary_tells_before_and_after(tmp_path: Path) -> None:
    found = summary(tmp_path)
    (question,) = found["questions"]
    assert not question["knew_before"]
    assert question["knows_after"]
    assert found["held_out_loss"] == {"before": 4.0, "after": 1.0}
    assert found["saved"] == [str(tmp_path / "adapter_model.safetensors")]


def test_the_lines_have_loss_speed_memory_paths_and_commands(tmp_path: Path) -> None:
    text = "\n".join(summary_lines(summary(tmp_path)))
    for piece in (
        "4.000 -> 1.000  (-75 %)",
        "150 tokens/s",
        "1.50 GiB",
        "adapter_model.safetensors",
        "tunesmith chat ",
    ):
        assert piece in text


@pytest.fixture
def program(monkeypatch, tmp_path):
    """A `tunesmith` beside this interpreter, in a folder below the current one."""
    path = tmp_path / ".venv" / "bin" / "tunesmith"
    path.parent.mkdir(parents=True)
    path.touch()
    monkeypatch.setattr(sys, "executable", str(path.with_name("python")))
    monkeypatch.chdir(tmp_path)
    return path


def test_the_commands_to_go_on_with_can_be_pasted(program, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: str(program))
    chat, export = next_commands(Path("my demo"))
    assert chat == "tunesmith chat 'my demo/run.yaml'"
    assert export == "tunesmith export 'my demo/run.yaml' --export_dir 'my demo/merged'"


def test_they_name_the_program_by_its_path_where_the_shell_does_not_find_it(program, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    chat, _ = next_commands(Path("out"))
    assert chat == ".venv/bin/tunesmith chat out/run.yaml"


def test_a_folder_of_somebody_else_is_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    assert main(["demo", "--output", str(tmp_path)]) == 73
    assert "error[E-CLI-010]" in capsys.readouterr().err
