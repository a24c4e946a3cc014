"""How the Trainer's steps and evaluations stay within memory: the parts they run in, the probe, and several ranks.

Ranks must agree before one of them begins a step anew. They do where it is likely to be needed: in a step with a larger
batch than any that went well, and in the probe. Such a careful step runs on the model itself, without DDP; at its end
one sequence without labels goes through DDP, whose backward pass then adds up what all ranks have gathered. In other
steps DDP adds up while the last backward pass runs, and a rank that runs out of memory there stops the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tunesmith.checkpoints.chance import Chance
from tunesmith.core.errors import TunesmithError
from tunesmith.core.log import get_logger
from tunesmith.models.out_of_memory import is_out_of_memory
from tunesmith.train.advice import Facts, facts_of, no_room, no_room_for_states, no_room_to_save, optimizer_bytes
from tunesmith.train.memory import Parts, save_limits
from tunesmith.train.micro import Batch, Size, cost, size_of
from tunesmith.train.probe import FEW, Reached, beside_states, full_rows, largest_rows
from tunesmith.train.sampler import RankBatchSampler

if TYPE_CHECKING:
    from tunesmith.train.trainer import Trainer

__all__ = ["MemorySettings", "StepMemory"]

StepRun = Callable[[Any, Batch, Any], Tensor]
"""transformers' own `training_step`: forward and backward of (model, batch, units)."""


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """`limits`: what a checkpoint tells of sizes that fitted. `probes`: whether the largest micro-batch is tried before
    the first step. `longest`: tokens of the longest row there can be, where rows are not known ahead (streams)."""

    limits: Mapping[str, int] = field(default_factory=dict)
    probes: bool = False
    longest: int = 0


class StepMemory:
    """What the Trainer asks of memory: `train` and `evaluation` hold the sizes that fit."""

    def __init__(self, trainer: Trainer, settings: MemorySettings) -> None:
        self._trainer = trainer
        self._longest = settings.longest
        self._waits = settings.probes
        self.train = self._parts("train", settings, forget=self._forget_gradients)
        self.evaluation = self._parts("eval", settings, forget=_nothing)
        self._fitted = Size(0, 0)
        self._careful = False

    def _parts(self, name: str, settings: MemorySettings, forget: Callable[[], None]) -> Parts:
        def hopeless(batch: Batch, where: str, alone: bool) -> TunesmithError:
            return no_room(batch, self._facts(), where, alone=alone, training=name == "train")

        most = settings.limits.get(name)
        if name == "train" and self._only_once:
            most = None
        device, tell = self._trainer.args.device, self._trainer.on_event
        return Parts(name, device, forget=forget, hopeless=hopeless, most=most, on_event=tell)

    # ---- steps ----

    def is_new(self, batches: Sequence[Batch]) -> bool:
        """Whether one of a step's batches is larger than all that went well on this rank."""
        if self._ranks == 1:
            return False
        sizes = [size_of(batch) for batch in batches]
        return any(one.tokens > self._fitted.tokens or one.longest > self._fitted.longest for one in sizes)

    def begin(self, *, new: bool) -> None:
        """A step begins; `new`: some rank has a batch in it that is larger than all that went well there."""
        self._careful = new
        redo = (self._careful or self._ranks == 1) and not self._only_once
        where = f"step {self._trainer.state.global_step + 1}"
        self.train.begin(where, self._agree if self._careful else None, redo=redo)

    def step(self, model: Any, batch: Batch, units: Any, run: StepRun) -> Tensor:
        """The loss of one of the step's batches, after forward and backward."""
        accelerator = self._trainer.accelerator
        within = self._trainer.model if self._careful else model

        def run_part(part: Batch, last: bool) -> Tensor:
            with nullcontext() if last or self._careful else accelerator.no_sync(model=model):
                return run(within, part, units)

        loss = self.train.run(batch, run_part)
        if self._careful and accelerator.sync_gradients:
            self._add_up(model, batch, units, run)
        self._fitted = _larger(self._fitted, size_of(batch))
        return loss

    def _add_up(self, model: Any, batch: Batch, units: Any, run: StepRun) -> None:
        """Gradients over all ranks: DDP adds up what was gathered when something passes through it, here nothing."""
        chance = Chance(self._trainer.args.device)
        ids = batch["input_ids"][0, :2].numpy()  # of a batch of one-token rows only one
        blank = {"input_ids": ids, "trained": np.zeros(len(ids), np.bool_)}
        if "weights" in batch:
            blank["weights"] = np.ones(len(ids), np.float32)
        run(model, self._trainer.data_collator([blank]), units)
        chance.restore()

    # ---- evaluation ----

    def evaluate(self, batch: Batch, run: Callable[[Batch], Tensor]) -> Tensor:
        """The sums that `run` gives for a batch, in parts. Ranks need not agree: nothing is shared."""
        self.evaluation.begin(f"evaluation after step {self._trainer.state.global_step}")
        return self.evaluation.run(batch, lambda part, last: run(part))

    # ---- the probe ----

    def probe_once(self, sampler: RankBatchSampler | None, run: StepRun) -> None:
        """Before the first step of a run: try the largest micro-batch of this rank; `sampler` None: of a stream."""
        if not self._waits:
            return
        self._waits = False
        trainer = self._trainer
        args, state = trainer.args, trainer.state
        left = (state.max_steps - state.global_step) * args.gradient_accumulation_steps
        if left <= FEW or self._only_once:
            reason = self._only_once or f"the run has {left} micro-batches"
            get_logger().info("the memory of a step is not tried first: %s", reason)
            return
        batch = self._largest(sampler)
        units = torch.tensor(max(trainer.objective.count_units(batch), 1.0), device=args.device)
        model = trainer.model if self._ranks > 1 else trainer.model_wrapped
        self._careful = self._ranks > 1
        self.train.begin(f"before step {state.global_step + 1}", self._agree if self._careful else None)
        states = 0 if trainer.optimizer.state else optimizer_bytes(self._optim, trainer.model)
        get_logger().info("the largest micro-batch is tried first: %s tokens", f"{cost(batch):,}")
        with beside_states(trainer.model, states, accumulates=args.gradient_accumulation_steps > 1, device=args.device):
            self.train.run(batch, lambda part, last: run(model, part, units))
        trainer.throughput.sums.drop()
        self._fitted = size_of(batch)

    def _largest(self, sampler: RankBatchSampler | None) -> Any:
        trainer = self._trainer
        args, state = trainer.args, trainer.state
        if sampler is None:
            return trainer.data_collator(full_rows(args.per_device_train_batch_size, self._longest))
        steps = -(-len(sampler) // args.gradient_accumulation_steps)
        reached = Reached(state.global_step // steps, state.max_steps, args.gradient_accumulation_steps)
        rows, padded = trainer.train_dataset, not getattr(trainer.data_collator, "one_row", False)
        numbers = largest_rows(sampler, rows.lengths, reached, padded=padded) or [0]  # a rank may have none at all
        return trainer.data_collator([rows[number] for number in numbers])

    # ---- what it says and keeps ----

    @contextmanager
    def told(self) -> Iterator[None]:
        """Out of memory where no smaller part helps, as an error with advice: in the optimizer, before or in a step."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise no_room_for_states(self._facts()) from error

    @contextmanager
    def told_of_save(self) -> Iterator[None]:
        """The same while a checkpoint is written."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise no_room_to_save(self._facts()) from error

    def save(self, folder: Path) -> None:
        save_limits(folder, self.train, self.evaluation)

    @property
    def _ranks(self) -> int:
        return int(self._trainer.args.world_size)

    def _agree(self, number: int) -> int:
        mine = torch.tensor([number], dtype=torch.int64, device=self._trainer.args.device)
        return int(self._trainer.accelerator.gather(mine).max())

    def _forget_gradients(self) -> None:
        self._trainer.model.zero_grad()
        self._trainer.throughput.sums.drop()

    def _facts(self) -> Facts:
        args = self._trainer.args
        return facts_of(self._trainer.model, self._optim, half=args.bf16 or args.fp16)

    @property
    def _only_once(self) -> str | None:
        """The setting for which a backward pass cannot be taken back: neither made again, nor in parts, nor tried."""
        settings = self._trainer.optimizer_settings
        return f"{settings.in_backward}: true" if settings is not None and settings.in_backward else None

    @property
    def _optim(self) -> str:
        settings, optim = self._trainer.optimizer_settings, self._trainer.args.optim
        return str(getattr(optim, "value", optim)) if settings is None else settings.name


def _larger(one: Size, other: Size) -> Size:
    return Size(max(one.tokens, other.tokens), max(one.longest, other.longest))


def _nothing() -> None:
    """An evaluation leaves nothing behind."""
