"""`anomalies.jsonl`: one line for each step that was out of the ordinary, with the rows that were in it.

{"step": 7, "epoch": 0.75, "kind": "nonfinite_loss", "action": "skip", "loss": [["nan"]], "grad_norm": ["nan"],
 "rows": [[[3, 14]]], "places": [[["data/x.jsonl:4", "data/x.jsonl:15"]]], "guilty": ["data/x.jsonl:15"],
 "weights_finite": true}

loss and rows are lists of ranks, of micro-batches; rows are numbers in the data as it is trained on (of a stream:
window and number in it), places where they stand in their files. guilty: the rows whose loss alone is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.train.callbacks.log_file import append_line
from tunesmith.train.callbacks.names import ANOMALIES_NAME

if TYPE_CHECKING:
    from tunesmith.train.sampler import RankBatchSampler
    from tunesmith.train.stream_batches import StreamBatches
    from tunesmith.train.trainer import Trainer

__all__ = ["StepRows", "record", "rows_of_step", "rows_of_stream"]

_MOST_PIECES = 64  # of a pack


class StepRows:
    """The rows of a step: [ranks][micro-batches][rows], as numbers and as places."""

    def __init__(self, rows: list[list[list[Any]]], places: list[list[list[str]]]) -> None:
        self.rows, self.places = rows, places

    def of_rank(self, rank: int) -> list[str]:
        """Places of one rank, in the order of its batches."""
        return [place for batch in self.places[rank] for place in batch]


def rows_now(trainer: Trainer) -> StepRows:
    """Of the step that a trainer is making."""
    if trainer.stream_batches is not None:
        return rows_of_stream(trainer.stream_batches)
    assert trainer.sampler is not None, "made with the loader"
    accumulation = trainer.args.gradient_accumulation_steps
    return rows_of_step(trainer.sampler, trainer.train_dataset, trainer.state.global_step, accumulation)


def rows_of_step(sampler: RankBatchSampler, dataset: Any, step: int, accumulation: int) -> StepRows:
    """Of the step after `step` steps: the order of an epoch is a function of its number, so nothing has to be kept."""
    steps = -(-len(sampler) // accumulation)
    batches = sampler.all_rows(step // steps)[step % steps * accumulation :][:accumulation]  # [micro-batches, ranks, b]
    rows = [[[int(row) for row in batch if row >= 0] for batch in rank] for rank in batches.swapaxes(0, 1)]
    places = [[[place for row in batch for place in _places(dataset, row)] for batch in rank] for rank in rows]
    return StepRows(rows, places)


def rows_of_stream(stream: StreamBatches) -> StepRows:
    """Of the batches that were given last."""
    rows: list[list[list[Any]]] = []
    places: list[list[list[str]]] = []
    for rank in range(stream.ranks):
        mine = [stream.part(block, rank) for block in stream.given]
        rows.append([[[sample.window.number, sample.number] for sample in batch] for batch in mine])
        places.append([[place for one in batch for place in _places(one.window.samples, one.number)] for batch in mine])
    return StepRows(rows, places)


def _places(samples: Any, number: int) -> list[str]:
    """Of a sample, or of the pieces of a pack."""
    if not hasattr(samples, "pieces"):
        return [str(samples.origin(number))]
    first, last = int(samples.bounds[number]), int(samples.bounds[number + 1])
    return [str(samples.pieces.origin(piece)) for piece in range(first, min(last, first + _MOST_PIECES))]


def record(folder: Path, facts: Mapping[str, Any]) -> None:
    """Append a line. Numbers that JSON has not are written as words."""
    append_line(folder / ANOMALIES_NAME, {name: _plain(value) for name, value in facts.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return value
