"""How runs are written for people: a line in a list of 80 columns, and a page."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tunesmith.cli.output import table_lines

if TYPE_CHECKING:
    from tunesmith.runs.row import Row

__all__ = ["HEAD", "row_line", "show_lines"]

HEAD = f"{'id':<8}  {'name':<18}  {'status':<9}  {'step':>13}  {'loss':>8}  {'eval':>8}  {'age':>4}"
_WIDTH = 80
_EVENTS = 10
_REVISION = 19  # `sha256:` and a dozen digits
_NOTICES = 6
_COUNTS = ("_runtime", "_per_second", "_tokens", "_at_once", "_halvings")
_MEASURED = ("train_loss", "train_runtime", "train_tokens_per_second", "train_mfu", "peak_memory_gib")
_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def row_line(row: Row) -> str:
    steps = f"{row.done}/{row.total}" if row.total else "-"
    numbers = f"{_number(row.loss):>8}  {_number(row.eval_loss):>8}  {age(row.updated):>4}"
    return f"{row.id:<8}  {_cut(row.name or row.output_dir, 18):<18}  {row.status:<9}  {steps:>13}  {numbers}"


def _figure(value: Any) -> str:
    return f"{value:,.6g}" if isinstance(value, int | float) else str(value)


def show_lines(row: Row, found: Mapping[str, Any]) -> Iterator[str]:
    """The page of a run."""
    yield from table_lines({key: value for key, value in _facts(row, found).items() if value})
    metrics = {key: _figure(value) for key, value in sorted((found["metrics"] or {}).items()) if _is_shown(key)}
    if metrics:
        yield ""
        yield "metrics:"
        yield from table_lines(metrics, "  ")
    if found["events"]:
        yield ""
        yield "events (UTC):"
        yield from _events(found["events"], found.get("events_left_out") or 0)
    if notices := found["notices"]:
        yield ""
        yield "notices:"
        for notice in notices[:_NOTICES]:
            yield from textwrap.wrap(notice, _WIDTH, initial_indent="  ", subsequent_indent="    ")
        if len(notices) > _NOTICES:
            yield f"  ... and {len(notices) - _NOTICES} more: data_report.json"


def _facts(row: Row, found: Mapping[str, Any]) -> dict[str, str]:
    model = found["model"] or {}
    kept = ", ".join(one["name"] + (" (best)" if one["best"] else "") for one in found["checkpoints"][-5:])
    more = len(found["checkpoints"]) - 5
    return {
        "run": f"{row.id}  {row.name}",
        "tags": ", ".join(row.tags),
        "status": _status(row),
        "error": _error(found["error"]),
        "steps": _steps(row),
        "last": _points(found["last"]),
        "best": _points(found["best"]),
        "anomalies": f"{found['anomalies']} in anomalies.jsonl" if found["anomalies"] else "",
        "checks": _checks(found["checks"] or {}),
        "folder": row.output_dir,
        "kept": (f"{more} more, " if more > 0 else "") + kept if kept else "no checkpoint",
        "model": f"{model.get('name', '')}  {(model.get('revision') or '')[:_REVISION]}".strip(),
        "data": ", ".join(dict.fromkeys(f"{one['dataset']} ({one['use']})" for one in found["data"] or ())),
        "begun": f"{_time(row.created)} UTC",
        "command": shlex.join(found["command"] or ()),
    }


def _is_shown(metric: str) -> bool:
    """Not all that is measured: --json has the rest."""
    quality = metric.startswith(("eval_", "predict_")) and not metric.endswith(_COUNTS)
    return quality or metric in _MEASURED


def _status(row: Row) -> str:
    explained = {
        "died": "its process is gone and did not say how it ended; the same command goes on from the last checkpoint",
        "gone": "the folder is no more, or holds another run; tunesmith runs rm forgets it",
    }
    process = row.process_id
    if row.status in explained:
        return f"{row.status}: {explained[row.status]}"
    if row.goes_on and process is not None:
        return f"{row.status} ({process}), said {age(row.updated)} ago"
    code = "" if row.exit_code is None else f", exit code {row.exit_code}"
    return f"{row.status}{code}, {age(row.updated)} ago"


def _steps(row: Row) -> str:
    if not row.total:
        return ""
    share = f"{row.done} of {row.total} ({row.done / row.total:.0%})"
    return f"{share}, {row.eta} left" if row.goes_on and row.eta else share


def _points(points: Mapping[str, Mapping[str, float]]) -> str:
    return ", ".join(f"{key} {point['value']:.4f} at step {point['step']}" for key, point in points.items())


def _checks(checks: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {'holds' if one.get('holds') else 'DOES NOT HOLD'}" for name, one in checks.items())


def _error(error: Mapping[str, str] | None) -> str:
    return f"{error['code']}: {error['what']}" if error else ""


def _events(events: list[Mapping[str, Any]], left_out: int) -> Iterator[str]:
    hidden = left_out + max(0, len(events) - _EVENTS)
    if hidden:
        yield f"  ... {hidden} earlier ones: --json"
    for one in events[-_EVENTS:]:
        facts = {key: value for key, value in one.items() if key not in ("time", "kind")}
        told = "  ".join(f"{key} {_fact(value)}" for key, value in facts.items() if value not in (None, {}, []))
        text = f"{_time(one['time'])}  {one['kind']}" + (f"  {told}" if told else "")
        yield from textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent=" " * 8)


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_fact(one)}" for key, one in value.items())
    return " -> ".join(map(str, value)) if isinstance(value, list) else str(value)


def age(time: str) -> str:
    """`12s`, `5m`, `3h`, `8d` since a time of a record; nothing where there is none."""
    try:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds()
    except ValueError:
        return ""
    return next((f"{seconds // size:.0f}{unit}" for unit, size in _UNITS if seconds >= size), "0s")


def _time(time: str) -> str:
    return time.replace("T", " ").removesuffix("Z")


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:.3g}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
