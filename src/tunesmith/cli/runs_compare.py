"""`tunesmith runs compare`: what differs between runs, and their curves."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tunesmith.cli.output import has_colour, print_json
from tunesmith.core.errors import Problem, UsageError

__all__ = ["compare"]

_WIDTH = 80
_NAMES = 26  # columns of the names of what is compared
_DRAWN = ("loss", "eval_loss")


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN ...", show_default=False, help="Folders, ids, names.")],
    metric: Annotated[str | None, typer.Option(metavar="NAME", help="Draw this one. Left out: the losses.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw into a picture (PNG).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts, with all curves.")] = False,
) -> None:
    """Compare runs: keys that differ, last and best metrics, curves."""
    from tunesmith.runs.compare import compare, draw
    from tunesmith.runs.find import find

    rows = find(runs)
    if len({row.id for row in rows}) < max(2, len(rows)):
        raise UsageError(Problem("E-RUN-015", "two or more different runs are compared", got=" ".join(runs)))
    found = compare(rows)
    curves: list[Mapping[str, Any]] = found["curves"]
    metrics = _metrics(curves, metric, must=plot is not None)
    if as_json:
        print_json(found)
    else:
        for line in _lines(found, metrics):
            print(line)
    if plot is not None:
        file = plot.expanduser()
        draw([f"{row.name} ({row.id[:4]})" for row in rows], curves, metrics, file)
        print(f"written: {file}", file=sys.stderr)


def _metrics(curves: Sequence[Mapping[str, Any]], wanted: str | None, *, must: bool) -> list[str]:
    """What is drawn. Raises UsageError for a metric that no run has logged, and for none where one `must` be there."""
    known = dict.fromkeys(name for one in curves for name in one)
    if wanted is None and (known or not must):
        return [name for name in _DRAWN if name in known] or list(known)[:1]
    if wanted not in known:
        what = f'no run has logged "{wanted}"' if wanted else "no run has logged anything to draw"
        raise UsageError(Problem("E-RUN-016", what, fix="one of: " + (", ".join(known) or "nothing is logged")))
    return [wanted]


def _lines(found: Mapping[str, Any], metrics: Sequence[str]) -> Iterator[str]:
    from tunesmith.runs.text_plot import COLOURS, LETTERS, text_plot

    colour = has_colour(sys.stdout)
    letters = [LETTERS[number % len(LETTERS)] for number in range(len(found["runs"]))]
    for number, (letter, run) in enumerate(zip(letters, found["runs"], strict=True)):
        shown = f"\x1b[{COLOURS[number % len(COLOURS)]}m{letter}\x1b[0m" if colour else letter
        yield f"{shown}  {run['id']}  {run['name']}  {run['status']} at step {run['done']} of {run['total']}"
    yield from _table("config", found["config"] or {"(the same)": [""] * len(letters)}, letters)
    yield from _table("facts", found["facts"], letters)
    yield from _table("last", {name: [_value(one) for one in each] for name, each in found["last"].items()}, letters)
    yield from _table("best", {name: [_at(one) for one in each] for name, each in found["best"].items()}, letters)
    yield from _table("figures", found["figures"], letters)
    for metric in metrics:
        yield ""
        yield f"{metric} by step"
        yield from text_plot([one.get(metric, []) for one in found["curves"]], colour=colour)


def _table(title: str, rows: Mapping[str, Sequence[Any]], letters: Sequence[str]) -> Iterator[str]:
    if not rows:
        return
    width = max(9, (_WIDTH - _NAMES) // len(letters) - 2)
    yield ""
    yield f"{title:<{_NAMES}}" + "".join(f"  {letter:>{width}}" for letter in letters)
    for name, each in rows.items():
        cells = "".join(f"  {_cut(_text(value), width):>{width}}" for value in each)
        yield f"{_cut(name, _NAMES):<{_NAMES}}{cells}"


def _value(point: Mapping[str, float] | None) -> float | None:
    return None if point is None else point["value"]


def _at(point: Mapping[str, float] | None) -> str | None:
    return None if point is None else f"{point['value']:.4f} at {point['step']}"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,.5g}" if isinstance(value, float) else str(value)


def _cut(text: str, width: int) -> str:
    """The end is what differs in paths, the beginning in digests: both are kept."""
    if len(text) <= width:
        return text
    half = (width - 2) // 2
    return f"{text[:half]}..{text[-(width - 2 - half) :]}"
