"""Losses of which a unit depends on the other units of an optimizer step: all of them are looked at first.

So what a unit's loss needs of the step does not depend on how the step is split into micro-batches and over ranks. An
evaluation is one step: all of its rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tunesmith.train.micro import split
from tunesmith.train.ranks import over_ranks

if TYPE_CHECKING:
    from tunesmith.train.trainer import Trainer

__all__ = ["Settled", "settle_step"]


class Settled:
    """What the units of a step have been given, batch by batch, in the order in which they were looked at."""

    def __init__(self, trainer: Trainer, batches: Iterable[Any]) -> None:
        """Looks at all batches, without dropout and without gradient; all ranks at theirs."""
        model, training = trainer.accelerator.unwrap_model(trainer.model), trainer.model.training
        trainer.model.eval()
        try:
            looked = [_look(trainer, model, batch) for batch in batches]
        finally:
            trainer.model.train(training)
        self._given = _settle(trainer, looked)

    def next(self, batch: Any) -> Any:
        """The next batch with its part."""
        return {**batch, "settled": self._given.pop(0)}


def settle_step(trainer: Trainer, batches: Sequence[Any]) -> list[Any]:
    """The micro-batches of a step, each with what its units need of the others."""
    if not trainer.objective.whole_step:
        return list(batches)
    settled = Settled(trainer, batches)
    return [settled.next(batch) for batch in batches]


def _look(trainer: Trainer, model: Any, batch: Any) -> Tensor:
    """[U, c] of the units of a batch, read in parts where memory had no room for more."""
    parts = [trainer.output_of(model, part, trainer.objective.look) for part in split(batch, trainer.memory.train.most)]
    return torch.cat(parts).double().cpu()


def _settle(trainer: Trainer, looked: Sequence[Tensor]) -> list[Tensor]:
    """[U, d] for each batch of this rank, which has none where it is to stop; then there will be no step."""
    own = torch.cat(list(looked)) if looked else torch.zeros(0, 0, dtype=torch.float64)
    shapes = over_ranks(trainer.accelerator, [float(size) for size in own.shape]).astype(int)
    counts, every = shapes[:, 0].tolist(), own
    if len(counts) > 1:
        padded = own.new_zeros(max(counts), int(shapes[:, 1].max()))
        padded[: len(own), : own.shape[1]] = own
        gathered = trainer.accelerator.gather(padded.to(trainer.args.device)).cpu()
        pieces = gathered.view(len(counts), max(counts), -1)
        every = torch.cat([piece[:count] for piece, count in zip(pieces, counts, strict=True)])
    first = sum(counts[: trainer.args.process_index])
    found = trainer.objective.settle(every) if len(every) else every.new_zeros(0, 1)
    return list(found[first : first + len(own)].split([len(one) for one in looked]))
