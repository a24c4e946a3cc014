"""What becomes of a step whose loss or gradient is not finite, on any rank: looked at before the optimizer steps.

    on_nonfinite: stop        the run ends (exit code 76); weights and checkpoints are those of the step before
    on_nonfinite: skip        the step trains nothing: no weight, no state of the optimizer, no state of chance moves
    on_nonfinite: rollback    back to the newest whole checkpoint of the run, and on without that step

A step that is left out counts as a step, for the learning rate too, and its rows are not seen again in that epoch. All
three are written to `anomalies.jsonl` with their rows. So many steps may be left out: IN_A_ROW, and SHARE of all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tunesmith.core.errors import DivergedError, Problem
from tunesmith.core.files import read_json
from tunesmith.core.log import get_logger
from tunesmith.models.out_of_memory import is_out_of_memory
from tunesmith.models.quantization.weights import packed_names
from tunesmith.train.anomalies import record, rows_now
from tunesmith.train.micro import split
from tunesmith.train.spikes import Spikes

if TYPE_CHECKING:
    from tunesmith.train.trainer import Trainer

__all__ = [
    "IN_A_ROW",
    "LEFT_OUT",
    "SHARE",
    "GoBack",
    "NonFinite",
    "NonFiniteSettings",
    "assert_finite",
    "read_left_out",
]

LEFT_OUT = "left_out.json"
"""In a checkpoint: the steps that were left out so far."""
IN_A_ROW = 3
SHARE = 0.001  # of the run's steps, but at least one
_MOST_TRIED = 64  # rows of a rank that are tried alone, to name the guilty ones


@dataclass(frozen=True, slots=True)
class NonFiniteSettings:
    """`policy`: the key on_nonfinite. `left_out`: numbers of steps that are not made."""

    policy: str = "stop"
    left_out: frozenset[int] = frozenset()


class GoBack(Exception):
    """The run is to go back to `checkpoint` (None: to its beginning) and to leave out these steps."""

    def __init__(self, checkpoint: str | None, left_out: frozenset[int], device: torch.device) -> None:
        super().__init__(checkpoint)
        self.checkpoint, self.left_out, self.device = checkpoint, left_out, device


def read_left_out(checkpoint: str | None) -> frozenset[int]:
    """The steps that were left out before a checkpoint."""
    found = None if checkpoint is None else read_json(Path(checkpoint) / LEFT_OUT)
    return frozenset(found["steps"]) if found else frozenset()


def assert_finite(model: Any) -> None:
    """Raises DivergedError where a trained weight is not finite: such weights are not saved. One norm over all."""
    weights = [one.detach() for one in model.parameters() if one.requires_grad and one.is_floating_point()]
    if not weights or bool(torch.isfinite(torch.nn.utils.get_total_norm(weights, norm_type=float("inf")))):
        return
    broken = [name for name, one in model.named_parameters() if one.requires_grad and not torch.isfinite(one).all()]
    raise DivergedError(
        Problem(
            "E-TRAIN-066",
            "the trained weights are not finite, and are not saved",
            where=f"weight {broken[0]}{f' and {len(broken) - 1:,} more' if len(broken) > 1 else ''}",
            fix="lower learning_rate; the last checkpoint is whole",
        )
    )


class NonFinite:
    """Follows the steps of a Trainer. `over_ranks`: numbers of this rank to [ranks, numbers]."""

    def __init__(
        self,
        trainer: Trainer,
        settings: NonFiniteSettings,
        over_ranks: Callable[[list[float]], np.ndarray],
    ) -> None:
        self._trainer, self._policy = trainer, settings.policy
        self._over_ranks = over_ranks
        self._left_out = set(settings.left_out)
        self._spikes, self._in_spike = Spikes(), False
        self.begin([])

    def begin(self, batches: Sequence[Any]) -> bool:
        """A step begins, with these batches. Returns whether it is left out."""
        self._batches = list(batches)
        self._losses: list[Tensor] = []
        self.leaves_out = self._step in self._left_out
        return self.leaves_out

    @property
    def _step(self) -> int:
        return int(self._trainer.state.global_step) + 1

    @property
    def steps_left_out(self) -> int:
        return len(self._left_out)

    def note(self, loss: Tensor) -> None:
        """The loss of one of the step's batches."""
        self._losses.append(loss)

    def judge(self, norm: Any, *, in_backward: bool) -> bool:
        """Before the optimizer steps: whether it may. `in_backward`: it has stepped already.

        Raises DivergedError (`stop`, or more steps than may be left out) and GoBack.
        """
        norm = torch.as_tensor(norm, device=self._trainer.args.device)
        table = self._over_ranks(torch.stack([*self._losses, norm]).double().cpu().tolist())
        losses, norms = table[:, :-1], table[:, -1]
        if np.isfinite(table).all():
            self._look_for_spike(float(losses.sum(1).mean()), losses, norms)
            return True
        kind = "nonfinite_gradient" if np.isfinite(losses).all() else "nonfinite_loss"
        self._record(kind, self._policy, losses, norms, guilty=self._guilty() if kind == "nonfinite_loss" else [])
        problem = self._diverged(losses, norms, in_backward=in_backward)
        if self._policy == "stop" or problem.code == "E-TRAIN-015":
            raise DivergedError(problem)
        self._left_out.add(self._step)
        self._check_budget()
        get_logger().warning("step %d is not finite (%s): it is left out", self._step, kind)
        if self._policy == "rollback":
            raise GoBack(self._trainer.stopping.newest(), frozenset(self._left_out), self._trainer.args.device)
        self.leaves_out = True
        return False

    def _diverged(self, losses: np.ndarray, norms: np.ndarray, *, in_backward: bool) -> Problem:
        """Weights that were never finite are another matter than a learning rate that is too high."""
        got = f"loss {losses.sum(1).mean():.4g}, gradient norm {norms.max():.4g}"
        model, packed = self._trainer.model, packed_names(self._trainer.model)
        whole = ((name, weight) for name, weight in model.named_parameters() if name not in packed)
        broken = next((name for name, weight in whole if not torch.isfinite(weight).all()), None)
        if self._step == 1 and broken is not None and not in_backward:
            what = "the model came with weights that are not finite"
            return Problem("E-TRAIN-015", what, f"weight {broken}", fix="get the model again, or use an earlier one")
        what, where = "the gradient is not finite: training has diverged", f"step {self._step}; the weights are still"
        where = f"{where} those of the step before; its rows are in anomalies.jsonl"
        fix = "lower learning_rate, add warmup_steps, or use bf16 instead of fp16"
        if in_backward:
            where = (
                f"step {self._step}; optimizer_in_bwd has changed weights by it: the last checkpoint is what is whole"
            )
            fix = "lower learning_rate, add warmup_steps"
        if np.isfinite(norms).all():
            what = "the loss is not finite: training has diverged"
        return Problem("E-TRAIN-003", what, where, got, fix)

    def _check_budget(self) -> None:
        steps, last = self._left_out, int(self._trainer.state.max_steps)
        most = max(1, int(SHARE * last))
        row = next(count for count in range(1, len(steps) + 2) if self._step - count not in steps)
        if len(steps) <= most and row <= IN_A_ROW:
            return
        what = "more steps are not finite than may be left out: training has diverged"
        got = f"{len(steps):,} steps of {last:,}, {row} in a row; at most {most:,}, and {IN_A_ROW} in a row"
        fix = "lower learning_rate, add warmup_steps, and look at the rows in anomalies.jsonl"
        raise DivergedError(Problem("E-TRAIN-067", what, f"step {self._step:,}", got, fix))

    def states(self) -> dict[str, Any]:
        """For a checkpoint: files and what they hold."""
        return {LEFT_OUT: {"steps": sorted(self._left_out)}} if self._left_out else {}

    # ---- what is told ----

    def _look_for_spike(self, loss: float, losses: np.ndarray, norms: np.ndarray) -> None:
        far = self._spikes.look(loss)
        if far is not None:
            if not self._in_spike:
                text = "step %d: the loss, %.4g, is far above that of the steps before (rows in anomalies.jsonl)"
                get_logger().warning(text, self._step, loss)
            self._record("loss_spike", "none", losses, norms, deviations=round(far, 1))
        self._in_spike = far is not None

    def _record(self, kind: str, action: str, losses: np.ndarray, norms: np.ndarray, **facts: Any) -> None:
        trainer = self._trainer
        if not trainer.is_world_process_zero():
            return
        rows = rows_now(self._trainer)
        weights = [one for one in trainer.model.parameters() if one.requires_grad]
        line = {"step": self._step, "epoch": round(trainer.state.epoch or 0.0, 4), "kind": kind, "action": action}
        line |= {"loss": losses.tolist(), "grad_norm": norms.tolist(), "rows": rows.rows, "places": rows.places}
        guilty = [rows.of_rank(rank)[number] for rank, number in facts.pop("guilty", [])]
        line |= {"guilty": guilty} if guilty else {}
        finite = all(bool(torch.isfinite(one).all()) for one in weights)
        record(Path(trainer.args.output_dir), {**line, **facts, "weights_finite": finite})
        if trainer.on_event is not None:
            trainer.on_event(kind, step=self._step, action=action)

    def _guilty(self) -> list[tuple[int, int]]:
        """(rank, number of the row there) whose loss is not finite when it is alone. All ranks take part."""
        rows = rows_now(self._trainer)
        mine = rows.of_rank(self._trainer.args.process_index)
        parts = [part for batch in self._batches for part in split(batch, 0)]
        flags = [0.0] * _MOST_TRIED
        if len(parts) == len(mine):  # else a part is more than a place: a pair
            for number, part in enumerate(parts[:_MOST_TRIED]):
                flags[number] = float(self._is_broken(part))
        table = self._over_ranks(flags)
        return [(int(rank), int(number)) for rank, number in np.argwhere(table > 0)]

    @torch.no_grad()
    def _is_broken(self, part: Any) -> bool:
        self._trainer.model.eval()  # each step of training turns it back
        try:
            return not bool(torch.isfinite(self._trainer.output_of(self._trainer.model, part).loss_sum))
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):  # nothing is known of it then
                return False
            raise
