"""How the Trainer is stopped: after a step, saved, with all ranks at once; and asked to save.

Signals (core/signals.py) and requests (core/control.py) are looked at by every rank once a step, before the step is
made, and go along with the numbers that the ranks exchange there anyway. So all of them save and leave together, and
the batches that were fetched for the step not made are fetched again by the run that goes on.

An evaluation is given up for it. The checkpoint says so (`control.json`), and the run that goes on makes it before
anything else: its log and its best model are those of a run that was never stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import TrainerCallback

from tunesmith.core import control
from tunesmith.core.control import Wanted
from tunesmith.core.errors import PreemptedError, Problem, TunesmithError
from tunesmith.core.files import read_json
from tunesmith.core.log import get_logger
from tunesmith.core.signals import StopAsked, current_signals
from tunesmith.train.checkpoint import what_is_wrong

if TYPE_CHECKING:
    from tunesmith.train.trainer import Trainer

__all__ = ["PENDING", "ControlSettings", "Stopping"]

PENDING = "control.json"
"""In a checkpoint: the evaluation that was given up when it was saved."""


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """`checkpoint`: from which the run goes on. `resumes`: whether the same command goes on from the newest one, as it
    does unless its keys say otherwise."""

    checkpoint: str | None = None
    resumes: bool = True


class Stopping(TrainerCallback):
    """What the Trainer asks before each step and each batch of an evaluation. `over_ranks`: numbers of this rank to
    [ranks, numbers]."""

    def __init__(
        self, trainer: Trainer, settings: ControlSettings, over_ranks: Callable[[list[float]], np.ndarray]
    ) -> None:
        self._trainer, self._resumes, self._over_ranks = trainer, settings.resumes, over_ranks
        self._checkpoint = settings.checkpoint
        self._pending: dict[str, Any] | None = None
        self._began_at = -1
        self._saved_at = -1
        self._saved: list[int] = []
        self._unusable: TunesmithError | None = None

    # ---- before a step ----

    def fetch(self, batches: Callable[[], list[Any]]) -> list[Any]:
        """What `batches` gives. None where a signal came: the step is not made, and waiting for data may take long.
        None either where rows cannot be used: that ends the run before the step, in all ranks."""
        try:
            with current_signals().interruptible():
                return self.read(batches) or []
        except StopAsked:
            return []

    def read(self, batches: Callable[[], list[Any]]) -> list[Any] | None:
        """What `batches` gives; None where rows cannot be used."""
        try:
            return batches()
        except TunesmithError as error:
            self._unusable = error
            return None

    def wanted(self) -> list[float]:
        """Of this rank: whether to save, whether to stop. Requests by file are the main process's."""
        leaves = current_signals().asked or self._unusable is not None
        found = Wanted.SAVE | Wanted.STOP if leaves else Wanted.NOTHING
        if self._trainer.is_world_process_zero():
            found |= control.wanted(self._trainer.args.output_dir)
        return [float(Wanted.SAVE in found), float(Wanted.STOP in found)]

    def before_step(self, save: float, stop: float) -> None:
        """What `wanted` gave, summed over the ranks. Raises PreemptedError where the run is to stop, and what is wrong
        with rows that some rank came to: what was trained so far is saved first."""
        step = self._trainer.state.global_step
        unusable = self._over_all(self._unusable) if stop else None
        if save and step > self._began_at:
            self._save(mended=unusable is not None)
        if unusable is not None:
            raise unusable
        if stop:
            self._leave(saved=bool(save) and step > self._began_at)

    def _over_all(self, error: TunesmithError | None) -> TunesmithError | None:
        """The error of this rank and those of all others, as one."""
        every: list[TunesmithError | None] = [error]
        if self._trainer.args.world_size > 1:
            from accelerate.utils import gather_object

            every = gather_object(every)
        found = [one for one in every if one is not None]
        return type(found[0])(list(dict.fromkeys(one for own in found for one in own.problems))) if found else None

    def _save(self, *, mended: bool = False) -> None:
        """Unless this step is saved already. `mended`: it goes on there once rows are."""
        trainer = self._trainer
        step = trainer.state.global_step
        if self._saved_at < step or not _checkpoint(trainer).is_dir():
            trainer.save_here()
        self._take_away()
        if mended:
            told = "saved %s: once the rows are mended, the same command goes on there"
            get_logger().warning(told, _checkpoint(trainer))
        else:
            get_logger().info("saved %s as asked", _checkpoint(trainer))

    def _take_away(self) -> None:
        if self._trainer.is_world_process_zero():
            control.clear(self._trainer.args.output_dir)

    def _leave(self, *, saved: bool) -> None:
        asked = current_signals().asked or "a request"
        self._take_away()
        state, fresh = self._trainer.state, self._trainer.state.global_step == 0
        if fresh:
            what, fix = "stopped as asked, before anything was trained", "the same command begins again"
            raise PreemptedError(Problem("E-TRAIN-061", what, got=asked, fix=fix))
        what = f"stopped as asked, after step {state.global_step:,} of {state.max_steps:,}"
        if saved and _checkpoint(self._trainer).is_dir():  # a full disk may be no reason to stop, but it saves nothing
            where, seconds = _checkpoint(self._trainer), self._trainer.saver.seconds
            took = "" if seconds is None else f"; saving took {seconds:.1f} s"
            raise PreemptedError(Problem("E-TRAIN-060", what, str(where), f"{asked}{took}", self._how(where)))
        if state.global_step == self._began_at:  # nothing new since the checkpoint that it went on from
            raise PreemptedError(Problem("E-TRAIN-060", what, got=asked, fix="the same command goes on there"))
        fix = "the same command goes on from the last checkpoint; stop-and-save makes one first"
        raise PreemptedError(Problem("E-TRAIN-062", f"{what}, without a checkpoint", got=asked, fix=fix))

    def _how(self, checkpoint: Path) -> str:
        if self._resumes:
            return "the same command goes on from there"
        return f"resume_from_checkpoint: {checkpoint} goes on from there"

    # ---- in an evaluation ----

    def is_asked(self) -> bool:
        """Whether a rank of a training run is asked to stop. All ranks ask together."""
        return self._trainer.is_in_train and bool(self._over_ranks(self.wanted())[:, 1].any())

    def before_evaluation_batch(self) -> None:
        """Gives the evaluation up where the run is to stop: raises PreemptedError, in all ranks, and what is wrong with
        rows that cannot be used."""
        trainer = self._trainer
        if not trainer.is_in_train:
            if self._unusable is not None:
                raise self._unusable
            return
        save, stop = self._over_ranks(self.wanted()).sum(0).tolist()
        if not stop:
            return
        step = trainer.state.global_step
        unusable = self._over_all(self._unusable)
        if save and step > 0:
            self._pending = {"save": bool(trainer.control.should_save)}
            self._saved_at = -1  # a checkpoint without this would be taken as one with its evaluation
            self._save(mended=unusable is not None)
        if unusable is not None:
            raise unusable
        self._leave(saved=bool(save) and step > 0)

    def states(self) -> dict[str, Any]:
        """For a checkpoint: files and what they hold."""
        return {} if self._pending is None else {PENDING: self._pending}

    # ---- events of the Trainer ----

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> Any:
        self._began_at = state.global_step
        pending = None if self._checkpoint is None else read_json(Path(self._checkpoint) / PENDING)
        if self._checkpoint is None or pending is None:
            return None
        get_logger().info("the evaluation after step %d is made first: it was given up", state.global_step)
        return self._trainer.evaluate_again(self._checkpoint, save=bool(pending["save"]))

    def on_save(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        self._saved_at = state.global_step
        self._saved.append(state.global_step)

    def newest(self) -> str | None:
        """The newest whole checkpoint of this session, or that from which it went on; None: the run's beginning."""
        self._trainer.saver.wait()
        folder = Path(self._trainer.args.output_dir)
        saved = [folder / f"checkpoint-{step}" for step in sorted(set(self._saved), reverse=True)]
        whole = (str(one) for one in saved if one.is_dir() and what_is_wrong(one) is None)
        return next(whole, self._checkpoint)

    # ---- after training ----

    @contextmanager
    def afterwards(self) -> Iterator[None]:
        """Evaluation and predictions after training: left at once. Raises PreemptedError; by then there is a checkpoint
        of the last step, from which the same command goes on."""
        try:
            with current_signals().interruptible():
                yield
        except StopAsked as asked:
            trainer = self._trainer
            step = trainer.state.global_step
            # Other ranks may be elsewhere, and the best model is not that of the last step.
            if trainer.args.world_size == 1 and self._saved_at < step and not trainer.args.load_best_model_at_end:
                trainer.save_here()
            what, fix = (
                "stopped as asked, after training and before all else was done",
                "the same command goes on there",
            )
            where = f"the trained weights are in {trainer.args.output_dir}"
            raise PreemptedError(Problem("E-TRAIN-063", what, where, str(asked), fix)) from None


def _checkpoint(trainer: Trainer) -> Path:
    return Path(trainer.args.output_dir) / f"checkpoint-{trainer.state.global_step}"
