"""The curve of the loss as a picture, from `trainer_log.jsonl`. matplotlib is imported only here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.core.errors import MachineError, MissingInputError, Problem
from tunesmith.train.callbacks.log_lines import read_lines, series
from tunesmith.train.callbacks.names import LOG_NAME, PLOT_NAME

__all__ = ["Curves", "plot_loss", "read_curves", "smooth"]

_RAW, _SMOOTH, _HELD_OUT = "#9ecae1", "#08519c", "#d94801"


class Curves(NamedTuple):
    """(step, loss) in the order of steps; `held_out` by the name of its key, `eval_loss` or `eval_NAME_loss`."""

    train: list[tuple[int, float]]
    held_out: dict[str, list[tuple[int, float]]]


def plot_loss(output_dir: str | Path) -> Path:
    """Draw the log of a run into `training_loss.png` beside it; returns the picture's path.

    Raises MachineError without matplotlib, MissingInputError where the log is missing or holds no loss.
    """
    folder = Path(output_dir)
    curves = read_curves(folder / LOG_NAME)
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        fix = 'pip install "tunesmith[plot]"; the numbers are in ' + LOG_NAME
        raise MachineError(Problem("E-TRAIN-090", "plot_loss needs matplotlib", fix=fix)) from error

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    _draw(figure.add_subplot(), curves, folder.name)
    path = folder / PLOT_NAME
    figure.savefig(path)
    return path


def read_curves(log: Path) -> Curves:
    """The losses of a log file. After a resume a step may be logged twice: the later line counts."""
    if not log.is_file():
        raise MissingInputError(Problem("E-TRAIN-091", "there is no log of a run to plot", where=str(log)))
    every = series(read_lines(log))
    found = {key: points for key, points in every.items() if key == "loss" or _is_held_out(key)}
    if not found:
        raise MissingInputError(Problem("E-TRAIN-091", "the log holds no loss yet", where=str(log)))
    return Curves(found.pop("loss", []), found)


def _is_held_out(key: str) -> bool:
    return key.startswith("eval_") and key.endswith("loss")


def smooth(values: Sequence[float], weight: float) -> list[float]:
    """Exponential moving average, corrected for its start (as Adam does), so that the first value is itself."""
    averages = []
    total = norm = 0.0
    for value in values:
        total = weight * total + (1 - weight) * value
        norm = weight * norm + (1 - weight)
        averages.append(total / norm)
    return averages


def _draw(axes: Any, curves: Curves, title: str) -> None:
    if curves.train:
        steps, losses = zip(*curves.train, strict=True)
        # The window grows with the run: about a tenth of its points.
        weight = max(0.0, 1 - 10 / max(len(losses), 10))
        axes.plot(steps, losses, color=_RAW, linewidth=0.8, marker="." if len(losses) < 3 else "", label="training")
        if weight > 0:
            axes.plot(steps, smooth(losses, weight), color=_SMOOTH, linewidth=2, label="training, smoothed")
    for number, (key, points) in enumerate(curves.held_out.items()):
        steps, losses = zip(*points, strict=True)
        name = key.removeprefix("eval_").removesuffix("loss").rstrip("_")
        label = f"held-out, {name}" if name else "held-out"
        axes.plot(
            steps, losses, color=_HELD_OUT if number == 0 else f"C{number}", marker="o", markersize=5, label=label
        )
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.set_title(f"Loss of {title}" if title else "Loss")
    axes.grid(visible=True, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
