"""A run as a whole: its record, its curves, its checkpoints, and what should be known of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.checkpoints.store import committed, step_of
from tunesmith.core.files import read_json
from tunesmith.runs import manifest
from tunesmith.runs.row import Row
from tunesmith.train.callbacks.log_lines import Series, read_lines, series
from tunesmith.train.callbacks.names import LOG_NAME

__all__ = ["best", "checkpoints", "curves", "last", "summary"]

_MORE_IS_BETTER = ("accuracy", "bleu", "rouge", "f1", "exact_match", "reward", "margin")


def curves(row: Row) -> dict[str, Series]:
    """Every number that the run has logged, by step."""
    return series(read_lines(row.folder / LOG_NAME))


def summary(row: Row) -> dict[str, Any]:
    """All that `runs show` tells, for scripts as well."""
    found = manifest.read(row.folder) or {}
    drawn = curves(row)
    return {
        **row.for_scripts(),
        **{key: found.get(key) for key in _OF_THE_RECORD},
        "last": last(drawn),
        "best": best(drawn),
        "checkpoints": checkpoints(row.folder),
        "anomalies": _count_lines(row.folder / "anomalies.jsonl"),
        "notices": _notices(row.folder, found),
    }


_OF_THE_RECORD = (
    *("cwd", "command", "config", "config_digest", "plan", "model", "data", "template_digest", "versions", "hardware"),
    *("seeds", "checks", "metrics", "error", "events", "events_left_out"),
)


def last(drawn: Mapping[str, Series]) -> dict[str, dict[str, float]]:
    """The last value of every curve that says how well the model does, with its step."""
    return {key: _point(points[-1]) for key, points in drawn.items() if _tells_quality(key)}


def best(drawn: Mapping[str, Series]) -> dict[str, dict[str, float]]:
    """The best value of every such curve: the least, or the greatest where more is better. The first of equals."""
    found = {}
    for key, points in drawn.items():
        finite = [point for point in points if point[1] == point[1]]
        if _tells_quality(key) and finite:
            better = max if any(word in key for word in _MORE_IS_BETTER) else min
            found[key] = _point(better(finite, key=lambda point: point[1]))
    return found


def checkpoints(folder: Path) -> list[dict[str, Any]]:
    """The folders `checkpoint-N` by their steps; `best` marks the one with the best metric so far."""
    found = committed(folder)
    state = read_json(found[-1] / "trainer_state.json") if found else None
    named = (state or {}).get("best_model_checkpoint")
    best_one = Path(named).name if named else None
    return [{"name": one.name, "step": step_of(one), "best": one.name == best_one} for one in found]


def _tells_quality(key: str) -> bool:
    return key == "loss" or (key.startswith("eval_") and not key.endswith("_tokens"))


def _point(point: tuple[int, float]) -> dict[str, float]:
    return {"step": point[0], "value": point[1]}


def _notices(folder: Path, found: Mapping[str, Any]) -> list[str]:
    """What the config, and what the data made the run say."""
    report = read_json(folder / "data_report.json")
    return [*(found.get("warnings") or ()), *((report or {}).get("notices") or ())]


def _count_lines(file: Path) -> int:
    try:
        with file.open("rb") as lines:
            return sum(1 for _ in lines)
    except OSError:
        return 0
