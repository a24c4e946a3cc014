"""An evaluation as sums over all true rows of all ranks, divided once by the units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tunesmith.train.whole_step import Settled

if TYPE_CHECKING:
    from tunesmith.train.trainer import Trainer

__all__ = ["evaluate_sums"]


def evaluate_sums(trainer: Trainer, model: Any, dataloader: Any, prefix: str) -> dict[str, float]:
    """Metrics of `model` over the rows of a loader, by name with `prefix`. transformers averages batch means instead,
    and repeats rows on several ranks."""
    names: list[str] = []

    def run(batch: Any) -> Tensor:
        output = trainer.output_of(model, batch)
        found = {"loss": output.loss_sum, "units": output.units, "count": output.count, **output.metrics}
        names[:] = sorted(found)
        return torch.stack([found[name].double().cpu() for name in names])

    settled = Settled(trainer, dataloader) if trainer.objective.whole_step else None
    sums: Any = 0
    for batch in dataloader:
        if settled is not None:
            batch = settled.next(batch)
        trainer.stopping.before_evaluation_batch()
        sums = sums + trainer.memory.evaluate(batch, run)
        trainer.control = trainer.callback_handler.on_prediction_step(trainer.args, trainer.state, trainer.control)
    totals = trainer.accelerator.reduce(sums.to(trainer.args.device))
    total = dict(zip(names, totals.tolist(), strict=True))
    loss, units, count = (total.pop(name) for name in ("loss", "units", "count"))
    means = {"loss": loss / (units or 1), **{name: value / (count or 1) for name, value in total.items()}}
    return {**{f"{prefix}_{name}": value for name, value in means.items()}, f"{prefix}_{trainer.objective.unit}": count}
