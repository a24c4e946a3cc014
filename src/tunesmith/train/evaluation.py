"""An evaluation as sums over all true rows of all ranks, divided once by the units."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tunesmith.train.loaders import arrived
from tunesmith.train.metrics import means
from tunesmith.train.whole_step import Settled

if TYPE_CHECKING:
    from tunesmith.train.trainer import Trainer

__all__ = ["evaluate_rows", "full_eval_dtype"]

_COUNT = "units without weights"


def evaluate_rows(trainer: Trainer, dataloader: Any, prefix: str) -> dict[str, float]:
    """Metrics of the model over the rows of a loader, by name with `prefix`, and those of its replies to them."""
    model = trainer.prepare_evaluation()
    if (dtype := full_eval_dtype(trainer.args)) and not trainer.is_in_train:
        model = model.to(dtype)
    model.eval()
    metrics = _evaluate_sums(trainer, model, dataloader, prefix)
    if trainer.generations is not None:
        metrics |= trainer.generations.evaluate(dataloader.dataset, prefix)
    return metrics


def full_eval_dtype(args: Any) -> torch.dtype | None:
    """What evaluation after training (never during it) converts the weights to."""
    return torch.float16 if args.fp16_full_eval else torch.bfloat16 if args.bf16_full_eval else None


def _batches(trainer: Trainer, dataloader: Any) -> Iterator[Any]:
    """All processes have as many."""
    batches = iter(dataloader)
    for _ in range(len(dataloader)):
        found = trainer.stopping.read(lambda: [arrived(next(batches))])
        trainer.stopping.before_evaluation_batch()
        assert found is not None, "what is wrong has been raised"
        yield found[0]


def _evaluate_sums(trainer: Trainer, model: Any, dataloader: Any, prefix: str) -> dict[str, float]:
    """transformers averages batch means instead, and repeats rows on several ranks."""
    names: list[str] = []

    def run(batch: Any) -> Tensor:
        output = trainer.output_of(model, batch)
        found = {"loss": (output.loss_sum, output.units), _COUNT: (output.count, output.count), **output.sums()}
        names[:] = sorted(found)
        return torch.stack([torch.stack([one.double().cpu() for one in found[name]]) for name in names])

    settled = Settled(trainer, _batches(trainer, dataloader)) if trainer.objective.whole_step else None
    sums: Any = 0
    for batch in _batches(trainer, dataloader):
        if settled is not None:
            batch = settled.next(batch)
        sums = sums + trainer.memory.evaluate(batch, run)
        trainer.control = trainer.callback_handler.on_prediction_step(trainer.args, trainer.state, trainer.control)
    totals = trainer.accelerator.reduce(sums.to(trainer.args.device))
    total = dict(zip(names, totals.tolist(), strict=True))
    count = total.pop(_COUNT)[0]
    found = {"loss": 0.0, **means(total)}
    found |= trainer.objective.derive(found)
    return {**{f"{prefix}_{name}": value for name, value in found.items()}, f"{prefix}_{trainer.objective.unit}": count}
