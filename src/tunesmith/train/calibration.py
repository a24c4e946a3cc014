"""Rows of a run for a method that begins from what the base does with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tunesmith.data.collate import FlatCollator, PaddingCollator
from tunesmith.data.streaming.samples import SampleStream
from tunesmith.methods.base import Calibration
from tunesmith.models.tokenizer import pad_id_of

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.config import RunConfig, RunPlan
    from tunesmith.data import Datasets
    from tunesmith.objectives import Objective

__all__ = ["calibration_of"]

_TOKENS = 2048
"""Of a batch, or one row that has more."""


def calibration_of(
    config: RunConfig, plan: RunPlan, objective: Objective, tokenizer: Any, datasets: Datasets
) -> Calibration | None:
    """The first `lora_init_rows` rows that are trained, in batches of the run's kind; None where no method looks."""
    train = datasets.train
    if not config.method.looks_at_rows or train is None:
        return None
    samples = train.first().samples if isinstance(train, SampleStream) else train
    rows = [samples[number] for number in range(min(config.method.lora_init_rows, len(samples)))]
    # A row alone has no padding, which would count among the inputs of a layer.
    flat, pad_id, reads = plan.batches == "flat", pad_id_of(tokenizer), {"read_media": datasets.read_media}
    collate: Any = FlatCollator(pad_id, shares=plan.shares, **reads) if flat else PaddingCollator(pad_id, **reads)

    def batches() -> Iterator[Mapping[str, Any]]:
        for part in _parts(rows) if flat else [[row] for row in rows]:
            yield {name: _moved(value, plan.device) for name, value in collate(part).items()}

    # What compares with a reference has none yet, and where a policy is its own reference no gradient tells much.
    asked = objective.provable() if objective.compares else objective

    def loss(model: Any, batch: Mapping[str, Any]) -> Tensor:
        found = asked.compute(model, batch)
        return found.loss_sum / found.units.clamp(min=1)

    return Calibration(batches, loss)


def _parts(rows: list[Any]) -> Iterator[list[Any]]:
    part: list[Any] = []
    for row in rows:
        if part and sum(len(one["input_ids"]) for one in [*part, row]) > _TOKENS:
            yield part
            part = []
        part.append(row)
    if part:
        yield part


def _moved(value: Any, device: str) -> Any:
    if isinstance(value, Mapping):
        return {name: _moved(one, device) for name, one in value.items()}
    if isinstance(value, list):
        return [_moved(one, device) for one in value]
    return value.to(device) if hasattr(value, "to") else value
