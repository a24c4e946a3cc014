"""The curve of the loss from the log."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tunesmith.core.errors import MachineError, MissingInputError
from tunesmith.train.callbacks.plot import plot_loss, read_curves, smooth


def write(folder: Path, *events: dict) -> None:
    (folder / "trainer_log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    events = [{"current_steps": step, "loss": 10 / step} for step in range(1, 41)]
    write(tmp_path, *events, {"current_steps": 20, "eval_loss": 1.0}, {"current_steps": 40, "eval_loss": 0.5})
    path = plot_loss(tmp_path)
    assert path == tmp_path / "training_loss.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert "matplotlib.pyplot" not in sys.modules  # it would keep every figure and choose a window system


def test_one_point_is_enough(tmp_path: Path) -> None:
    write(tmp_path, {"current_steps": 0, "eval_loss": 1.0})
    assert plot_loss(tmp_path).is_file()


def test_the_later_line_of_a_step_counts(tmp_path: Path) -> None:
    """A resumed run logs the steps since its checkpoint a second time."""
    write(tmp_path, *({"current_steps": step, "loss": loss} for step, loss in [(1, 3.0), (2, 9.0), (2, 2.0)]))
    assert read_curves(tmp_path / "trainer_log.jsonl").train == [(1, 3.0), (2, 2.0)]


def test_evaluation_sets_are_apart(tmp_path: Path) -> None:
    write(tmp_path, {"current_steps": 1, "eval_a_loss": 1.0, "eval_b_loss": 2.0, "eval_tokens": 7})
    curves = read_curves(tmp_path / "trainer_log.jsonl")
    assert curves.train == []
    assert curves.held_out == {"eval_a_loss": [(1, 1.0)], "eval_b_loss": [(1, 2.0)]}


def test_smoothing_is_an_average_corrected_for_its_start() -> None:
    # weight 0.5: 4; (0.25 * 4 + 0.5 * 1) / 0.75 = 2
    assert smooth([4.0, 1.0], 0.5) == pytest.approx([4.0, 2.0])
    assert smooth([4.0, 1.0], 0.0) == [4.0, 1.0]


@pytest.mark.parametrize("content", [None, "", '{"current_steps": 1, "eval_tokens": 3}\n'])
def test_without_a_loss_there_is_nothing_to_plot(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "trainer_log.jsonl").write_text(content)
    with pytest.raises(MissingInputError):
        plot_loss(tmp_path)


def test_without_matplotlib_the_error_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"current_steps": 1, "loss": 1.0})
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MachineError) as caught:
        plot_loss(tmp_path)
    assert "tunesmith[plot]" in str(caught.value)
