"""An evaluation as sums over all true rows of all ranks, divided once by the units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tunesmith.train.metrics import means
from tunesmith.train.whole_step import Settled

if TYPE_CHECKING:
    from tunesmith.train.trainer import Trainer

__all__ = ["evaluate_sums"]

_COUNT = "units without weights"


def evaluate_sums(trainer: Trainer, model: Any, dataloader: Any, prefix: str) -> dict[str, float]:
    """Metrics of `model` over the rows of a loader, by name with `prefix`. transformers averages batch means instead,
    and repeats rows on several ranks."""
    names: list[str] = []

    def run(batch: Any) -> Tensor:
        output = trainer.output_of(model, batch)
        found = {"loss": (output.loss_sum, output.units), _COUNT: (output.count, output.count), **output.sums()}
        names[:] = sorted(found)
        return torch.stack([torch.stack([one.double().cpu() for one in found[name]]) for name in names])

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
    count = total.pop(_COUNT)[0]
    found = {"loss": 0.0, **means(total)}
    found |= trainer.objective.derive(found)
    return {**{f"{prefix}_{name}": value for name, value in found.items()}, f"{prefix}_{trainer.objective.unit}": count}
