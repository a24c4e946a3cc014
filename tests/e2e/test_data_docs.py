"""What docs/data.md shows about checking and looking at data is executed; its codes and reasons are the real ones."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tunesmith.__main__ import main
from tunesmith.cli.explain import read
from tunesmith.data.reasons import REASONS

ROOT = Path(__file__).resolve().parents[2]
SECTION = (ROOT / "docs" / "data.md").read_text(encoding="utf-8").partition("## Checking and looking at data")[2]


def commands() -> list[list[str]]:
    (block,) = re.findall(r"^```bash\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
    return [shlex.split(line)[1:] for line in block.splitlines()]


@pytest.fixture
def workplace(tmp_path: Path, tiny_model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(tiny_data / "new_openai.jsonl", "rows.jsonl")
    Path("run.yaml").write_text(f"model_name_or_path: {tiny_model}\ndataset: rows.jsonl\noutput_dir: out\n")
    return tmp_path


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_the_commands_run(words: list[str], workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0, capsys.readouterr().err
    assert capsys.readouterr().out
    if "--html" in words:
        assert Path(words[-1]).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_every_code_is_in_the_table() -> None:
    told: set[int] = set()
    for cell in re.findall(r"\| (E-LINT[^|]*) \|", SECTION):
        numbers = [int(number) for number in re.findall(r"\d{3}", cell)]
        told |= set(range(numbers[0], numbers[-1] + 1)) if " to " in cell else set(numbers)
    assert told == {int(code[-3:]) for code in read("lint")}


def test_every_reason_is_in_the_table() -> None:
    (table,) = re.findall(r"^\| \| \|\n\|---\|---\|\n((?:\|.*\n)+)", SECTION, re.MULTILINE)
    cells = [line.split("|")[1] for line in table.splitlines()]
    assert set(re.findall(r"`(\w+)`", " ".join(cells))) == set(REASONS)
