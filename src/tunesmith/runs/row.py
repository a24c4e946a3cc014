"""A run in one row: what the list of runs shows. All of it follows from `run.json` and the end of the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.process import ProcessId
from tunesmith.runs import manifest
from tunesmith.train.callbacks.log_lines import Line, last_lines
from tunesmith.train.callbacks.names import LOG_NAME

__all__ = ["STATUSES", "Row", "row_of"]

STATUSES = ("preparing", "running", "finished", "stopped", "failed", "died", "gone")
"""The first five are written by runs. `died`: its process is no more, and it did not say how it ended. `gone`: the
folder is no more, or holds another run."""

_GOING_ON = ("preparing", "running")


@dataclass(frozen=True, slots=True)
class Row:
    """`recorded`: the status that the run wrote. `loss` and `eval_loss` are the last ones logged. `eta`: time to go as
    the run said it last. Everything but id and folder is empty where the folder was never seen."""

    id: str
    output_dir: str
    recorded: str = ""
    name: str = ""
    kind: str = ""
    tags: tuple[str, ...] = ()
    exit_code: int | None = None
    created: str = ""
    updated: str = ""
    done: int = 0
    total: int = 0
    loss: float | None = None
    eval_loss: float | None = None
    eta: str | None = None
    process: Mapping[str, Any] | None = None
    died: bool = False
    gone: bool = False

    @property
    def folder(self) -> Path:
        return Path(self.output_dir)

    @property
    def process_id(self) -> ProcessId | None:
        """The process that trains or trained."""
        return ProcessId.from_dict(self.process) if self.process else None

    @property
    def status(self) -> str:
        """One of STATUSES, as it was when the row was made."""
        return "gone" if self.gone else "died" if self.died else self.recorded

    @property
    def goes_on(self) -> bool:
        return self.status in _GOING_ON

    def to_dict(self) -> dict[str, Any]:
        """For scripts, and for the index."""
        return asdict(self)

    def for_scripts(self) -> dict[str, Any]:
        """With the status as it is now."""
        return {"id": self.id, "status": self.status, **{k: v for k, v in asdict(self).items() if k not in _INNER}}


_INNER = ("id", "recorded", "died", "gone")


def row_of(run_id: str, output_dir: Path) -> Row | None:
    """The row of a run; None where its folder does not hold it."""
    found = manifest.read(output_dir)
    died = found is not None and _is_dead(found)
    if died:  # it may have written how it ended since it was read; now it cannot write any more
        found = manifest.read(output_dir)
    if found is None or found["id"] != run_id:
        return None
    lines = last_lines(output_dir / LOG_NAME) if found.get("kind") == "train" else []
    steps = _steps(found, lines)
    return Row(
        id=run_id,
        output_dir=str(output_dir),
        recorded=found["status"],
        name=found["name"],
        kind=found["kind"],
        tags=tuple(found["tags"]),
        exit_code=found["exit_code"],
        created=found["created"],
        updated=found["updated"],
        done=steps["done"],
        total=steps["total"],
        loss=_last(lines, "loss"),
        eval_loss=_last(lines, "eval_loss") if lines else found["metrics"].get("eval_loss"),
        eta=next((line["remaining_time"] for line in lines[-1:] if "remaining_time" in line), None),
        process=found["process"],
        died=died and found["status"] in _GOING_ON,
    )


def _is_dead(found: Mapping[str, Any]) -> bool:
    """Whether the process of a run that goes on is no more. On another machine nobody knows."""
    if found["status"] not in _GOING_ON or not found["process"]:
        return False
    process = ProcessId.from_dict(found["process"])
    return process.is_here and not process.is_alive


def _steps(found: Mapping[str, Any], lines: list[Line]) -> dict[str, int]:
    """The later of what the record and the log say: the record is written now and then."""
    steps: dict[str, int] = found["steps"]
    if found["status"] == "running" and lines and lines[-1]["current_steps"] > steps["done"]:
        return {"done": lines[-1]["current_steps"], "total": lines[-1].get("total_steps", steps["total"])}
    return steps


def _last(lines: list[Line], key: str) -> float | None:
    return next((float(line[key]) for line in reversed(lines) if isinstance(line.get(key), int | float)), None)
