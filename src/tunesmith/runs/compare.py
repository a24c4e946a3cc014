"""What differs between runs: keys of their configs, what they ran on, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.errors import MachineError, MissingInputError, OutputError, Problem
from tunesmith.runs import manifest
from tunesmith.runs.row import Row
from tunesmith.runs.summary import best, curves, last
from tunesmith.train.callbacks.log_lines import Series

__all__ = ["compare", "config_differences", "draw"]

_NOT_COMPARED = ("output_dir", "run_name", "overwrite_output_dir", "resume_from_checkpoint")
_FIGURES = ("train_loss", "train_runtime", "train_tokens_per_second", "train_tokens", "train_mfu", "peak_memory_gib")


def compare(rows: Sequence[Row]) -> dict[str, Any]:
    """For each thing that differs, the values in the order of the runs; and the curves of each.

    Raises MissingInputError where the folder of a run is gone.
    """
    found = [_record(row) for row in rows]
    drawn = [curves(row) for row in rows]
    return {
        "runs": [row.for_scripts() for row in rows],
        "config": config_differences([one["config"] for one in found]),
        "facts": _differing([_facts(one) for one in found]),
        "last": _by_name(last(one) for one in drawn),
        "best": _by_name(best(one) for one in drawn),
        "figures": _by_name({k: v for k, v in one["metrics"].items() if k in _FIGURES} for one in found),
        "curves": drawn,
    }


def _record(row: Row) -> dict[str, Any]:
    found = None if row.gone else manifest.read(row.folder)
    if found is None:
        raise MissingInputError(Problem("E-RUN-012", f"the folder of the run {row.id} is gone", row.output_dir))
    return found


def config_differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Keys that do not mean the same in all, with the value in each; a key that is not given has its default."""
    from tunesmith.config.keys import all_keys

    known = all_keys()
    names = dict.fromkeys(name for one in configs for name in one if name not in _NOT_COMPARED)
    values = {
        name: [one.get(name, known[name].default if name in known else None) for one in configs] for name in names
    }
    return {name: each for name, each in values.items() if any(_plain(one) != _plain(each[0]) for one in each)}


def _plain(value: Any) -> Any:
    return None if value == () else value


def _facts(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a run depends on besides its config."""
    data = sorted(f"{one['use']}:{one['digest']}" for one in found["data"])
    return {
        "data": " ".join(data),
        "template": found["template_digest"],
        "model revision": found["model"]["revision"],
        "device": found["hardware"].get("device_name") or found["hardware"]["processor"],
        "processes": found["hardware"]["processes"],
        **{f"version of {name}": version for name, version in found["versions"].items()},
    }


def _differing(facts: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: each for name in facts[0] if len(set(each := [one[name] for one in facts])) > 1}


def _by_name(found: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """A list of mappings as a mapping of lists, None where one has no such name."""
    each = list(found)
    return {name: [one.get(name) for one in each] for name in dict.fromkeys(name for one in each for name in one)}


def draw(names: Sequence[str], drawn: Sequence[Mapping[str, Series]], metrics: Sequence[str], file: Path) -> None:
    """The curves of all runs over each other, a panel for each metric, as a picture (PNG, or what the name ends in).

    Raises MachineError without matplotlib, OutputError where the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        fix = 'pip install "tunesmith[plot]"; without --plot the curves are drawn in the terminal'
        raise MachineError(Problem("E-RUN-013", "--plot needs matplotlib", fix=fix)) from error
    figure = Figure(figsize=(8, 4 * len(metrics)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for number, metric in enumerate(metrics, 1):
        axes = figure.add_subplot(len(metrics), 1, number)
        for name, one in zip(names, drawn, strict=True):
            if points := one.get(metric):
                steps, values = zip(*points, strict=True)
                axes.plot(steps, values, linewidth=1.2, marker="o" if len(points) < 40 else "", ms=3, label=name)
        axes.set_xlabel("step")
        axes.set_ylabel(metric)
        axes.grid(visible=True, alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    try:
        figure.savefig(file)
    except (OSError, ValueError) as error:
        what = f"the picture cannot be written: {error}"
        raise OutputError(Problem("E-RUN-014", what, str(file), fix="a name such as curves.png")) from error
