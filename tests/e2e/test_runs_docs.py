"""What docs/runs.md shows is executed, and its tables are those of the code and of a real run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tunesmith.__main__ import main
from tunesmith.runs import manifest
from tunesmith.runs.row import STATUSES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "runs.md").read_text(encoding="utf-8")


def first_cells(heading: str) -> set[str]:
    """Names in the first column of the table under a heading."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return {name for line in section.splitlines() if line.startswith("| `") for name in _names(line)}


def _names(line: str) -> list[str]:
    return re.findall(r"`(\w+)`", line.split("|")[1])


def commands() -> list[list[str]]:
    (block,) = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [shlex.split(line)[1:] for line in block.splitlines()]


def test_the_commands_run_and_the_tables_are_true(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    first = run(output_dir="saves/first").output_dir
    run(output_dir="saves/second", learning_rate=1e-2)
    written = manifest.read(first)
    assert first_cells("run.json") == written.keys() | {"events_left_out"}
    parts = set()
    for words in commands():
        assert main(words) == 0, capsys.readouterr().err
        captured = capsys.readouterr()
        assert captured.out
        if "verify" in words:
            parts = {line.split()[1] for line in captured.out.splitlines()}
    assert first_cells("Verifying") == parts | {"checkpoint"}
    assert (tmp_path / "curves.png").is_file()
    assert not (tmp_path / "saves" / "second").exists()


def test_the_table_of_statuses_is_that_of_the_code() -> None:
    assert first_cells("Status") == set(STATUSES)


def test_the_number_of_events_is_that_of_the_code() -> None:
    assert f"the last {manifest.MOST_EVENTS}," in PAGE
