"""`tunesmith runs compare`: what differs, and the curves in a terminal and in a picture."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.__main__ import main
from tunesmith.runs.compare import config_differences
from tunesmith.runs.text_plot import text_plot

MakeRun = Callable[..., Path]

FACTS: dict[str, Any] = {
    "data": [{"use": "train", "digest": "jsonl:1", "dataset": "x", "name": "x.jsonl"}],
    "template_digest": "t",
    "model": {"name": "m", "revision": "r"},
    "hardware": {"processor": "p", "processes": 1},
    "versions": {"torch": "2.6"},
}


@pytest.fixture
def pair(make_run: MakeRun) -> tuple[Path, Path]:
    one = {"config": {"learning_rate": 0.1, "seed": 42, "output_dir": "a"}, "metrics": {"train_loss": 3.0}}
    other = {"config": {"learning_rate": 0.2, "lora_rank": 8, "output_dir": "b"}, "versions": {"torch": "2.7"}}
    first = make_run("ab12", losses=(4.0, 2.0, 3.0), name="first", **{**FACTS, **one})
    return first, make_run("cd34", losses=(5.0, 4.0), name="second", **{**FACTS, **other})


def test_only_keys_that_differ_and_defaults_count() -> None:
    """lora_rank 8 and seed 42 are the defaults, so giving them changes nothing; a key of nobody's is compared too."""
    first = {"learning_rate": 0.1, "seed": 42, "output_dir": "a", "odd": 1}
    other = {"learning_rate": 0.1, "lora_rank": 8, "output_dir": "b", "warmup_steps": 3}
    assert config_differences([first, other]) == {"odd": [1, None], "warmup_steps": [0, 3]}
    assert config_differences([first, first, {**first, "seed": 1}]) == {"seed": [42, 42, 1]}


def test_compare_as_json(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "compare", "first", "second", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [run["id"] for run in found["runs"]] == ["ab12", "cd34"]
    assert found["config"] == {"learning_rate": [0.1, 0.2]}
    assert found["facts"] == {"version of torch": ["2.6", "2.7"]}
    assert found["last"] == {"loss": [{"step": 3, "value": 3.0}, {"step": 2, "value": 4.0}]}
    assert found["best"] == {"loss": [{"step": 2, "value": 2.0}, {"step": 2, "value": 4.0}]}
    assert found["figures"] == {"train_loss": [3.0, None]}
    assert found["curves"][1] == {"loss": [[1, 5.0], [2, 4.0]]}


def test_compare_for_people_fits_a_terminal(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "compare", "first", "second"]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "A  ab12  first  finished at step 3 of 3"
    row = next(line for line in lines if line.startswith("learning_rate"))
    assert row.split() == ["learning_rate", "0.1", "0.2"]
    assert "2.0000 at 2" in text
    assert "loss by step" in lines
    assert "\x1b" not in text


def test_a_picture_is_written(pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "curves.png"
    assert main(["runs", "compare", "first", "second", "--plot", str(file)]) == 0
    assert file.read_bytes().startswith(b"\x89PNG")
    assert "matplotlib.pyplot" not in sys.modules
    assert str(file) in capsys.readouterr().err
    for name in (tmp_path / "no" / "curves.png", tmp_path / "curves.nothing"):
        assert main(["runs", "compare", "first", "second", "--plot", str(name)]) == 73
        assert "E-RUN-014" in capsys.readouterr().err


def test_without_matplotlib_it_says_what_to_install(pair: tuple[Path, Path], monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["runs", "compare", "first", "second", "--plot", "x.png"]) == 78
    assert "E-RUN-013" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (["first"], 2, "E-RUN-015"),
        (["first", "ab12"], 2, "E-RUN-015"),
        (["first", "second", "--metric", "los"], 2, "E-RUN-016"),
    ],
)
def test_what_cannot_be_compared(pair: tuple[Path, Path], capsys, words: list[str], code: int, error: str) -> None:
    assert main(["runs", "compare", *words]) == code
    assert error in capsys.readouterr().err


def test_a_run_whose_folder_is_gone_cannot_be_compared(pair: tuple[Path, Path], capsys) -> None:
    pair[0].rename(pair[0].parent / "moved")
    assert main(["runs", "compare", "ab12", "second"]) == 66
    assert "E-RUN-012" in capsys.readouterr().err


def test_runs_that_logged_nothing_are_compared_and_not_drawn(make_run: MakeRun, capsys) -> None:
    make_run("ab12", losses=(), **FACTS)
    make_run("cd34", losses=(), **FACTS)
    assert main(["runs", "compare", "ab", "cd"]) == 0
    assert "(the same)" in capsys.readouterr().out
    assert main(["runs", "compare", "ab", "cd", "--plot", "x.png"]) == 2
    assert "E-RUN-016" in capsys.readouterr().err


# ---- curves in a terminal ----


def test_letters_are_where_the_values_are() -> None:
    """Ten columns and five rows: a line from the lower left to the upper right, and one along the bottom."""
    up = [(step, float(step)) for step in range(10)]
    flat = [(0, 0.0), (9, 0.0)]
    lines = text_plot([up, flat], colour=False, width=21, height=5)
    drawn = [line.partition("│")[2] for line in lines[:5]]
    assert drawn == ["        AA", "      AA", "    AA", "  AA", "BBBBBBBBBB"]
    assert lines[0].split("│")[0].strip() == "9"
    assert lines[4].split("│")[0].strip() == "0"
    assert lines[5].strip() == "└" + "─" * 10
    assert lines[6].split() == ["0", "9"]


def test_braille_has_eight_dots_a_character() -> None:
    """One column, one row: dots of two values at the least and the greatest step are two corners of a character."""
    (line, *_) = text_plot([[(0, 0.0), (1, 1.0)]], colour=True, width=12, height=1)
    assert line.endswith("\x1b[36m" + chr(0x2800 | 0x40 | 0x04 | 0x10 | 0x08) + "\x1b[0m")


@pytest.mark.parametrize("points", [[], [(1, math.nan)], [(1, math.inf), (2, -math.inf)]])
def test_nothing_finite_is_no_picture(points: list[tuple[int, float]]) -> None:
    assert text_plot([points], colour=False) == []


@pytest.mark.parametrize("points", [[(3, 2.0)], [(0, 1.0), (5, 1.0)], [(0, 1.0), (1, math.nan), (2, 3.0)]])
def test_one_point_and_constants_are_drawn(points: list[tuple[int, float]]) -> None:
    assert "A" in "".join(text_plot([points], colour=False))
