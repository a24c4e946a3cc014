"""How a checkpoint is saved: all processes write, one commits, and either all go on or none does.

With `async_save` weights and states are copied, and a thread writes and commits them while training goes on. The steps
of the commit are the same (`checkpoints/store.py`).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tunesmith.checkpoints.reserve import Reserve
from tunesmith.checkpoints.states import copied, save_tree
from tunesmith.checkpoints.store import STAGING, Staging, committed, files_of, publish, rotate, verify
from tunesmith.core.disk import free_at, refusal, size_text
from tunesmith.core.errors import Problem, StorageError
from tunesmith.core.log import get_logger
from tunesmith.train.states import show_average

__all__ = ["Saved", "Saver", "SavingSettings", "as_storage_error", "best_folder", "naming_the_disk", "publish_model"]

_MARGIN = 16 * 2**20  # bytes for small files and for the file system itself


@dataclass(frozen=True, slots=True, kw_only=True)
class SavingSettings:
    """limit: checkpoints that are kept (None: all). only_model: weights without states to resume from. background:
    copy, and write while training goes on. goes_on: a full disk is a warning as long as there is a whole checkpoint.
    facts: what the manifest says beside files and step. on_committed: told of each checkpoint, and which of its files
    are those of the model. reserve: of the process that commits. beside: puts into a folder what else belongs beside
    its weights."""

    limit: int | None = None
    only_model: bool = False
    background: bool = False
    goes_on: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    on_committed: Callable[[Path, list[str]], None] | None = None
    reserve: Reserve | None = None
    beside: Callable[[str], None] | None = None


class Saved(Protocol):
    """What is saved of a trainer."""

    def write_small_states(self, folder: Path) -> None:
        """Files of a few kilobytes, in every process."""

    def weights_to_save(self) -> dict[str, Any]:
        """Tensors by name, as the model gives them: copies of those that training changes."""

    def write_weights(self, folder: Path, weights: Mapping[str, Any] | None = None) -> None:
        """These weights, or those that the model has now."""

    def large_states(self) -> dict[str, Any]:
        """Trees of tensors by name: those of the optimizer."""

    def bytes_to_save(self) -> int:
        """About how much weights and large states take on the disk."""


class Saver:
    """Saves the checkpoints of one run.

    over_ranks  numbers of this process to [processes, numbers]; each calls it
    main        whether this process commits
    """

    def __init__(
        self, settings: SavingSettings, over_ranks: Callable[[list[float]], np.ndarray], *, main: bool
    ) -> None:
        self.settings = settings
        self.seconds: float | None = None
        """How long the last save took, to the commit; None before the first."""
        self._over_ranks, self._main = over_ranks, main
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="save") if settings.background else None
        self._pending: Future[None] | None = None

    def put_beside(self, folder: str, tokenizer: Any) -> None:
        """What belongs beside the weights of a model, into the folder that these are saved in."""
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        if self.settings.beside is not None:
            self.settings.beside(folder)

    def save(self, what: Saved, folder: Path, step: int, best: Path | None) -> bool:
        """Commit `folder`, which is `output_dir/checkpoint-N`. False where the disk was full and the run goes on.

        Raises StorageError in all processes where one of them could not write; earlier checkpoints stay as they were.
        """
        self.wait()
        try:
            return self._save(what, folder, step, best)
        except StorageError as error:
            if not self._gives_up_reserve():
                return self._may_go_on(error, folder)
        try:
            return self._save(what, folder, step, best)
        except StorageError as error:
            return self._may_go_on(error, folder)

    def _save(self, what: Saved, folder: Path, step: int, best: Path | None) -> bool:
        begun = time.monotonic()
        draft = _Draft(folder, step, best, self.settings, main=self._main)
        try:
            self.together(lambda: draft.begin(what), folder)
            self.together(lambda: draft.write(what), folder)
            if self._thread is not None:
                self._pending = self._thread.submit(self._finish, draft, begun)
                return True
            self.together(draft.commit, folder)
        except BaseException:
            draft.discard()
            raise
        self._told(draft, begun)
        return True

    def _gives_up_reserve(self) -> bool:
        """Whether there was one in the process that commits; all processes try again then."""
        reserve = self.settings.reserve
        given = bool(self._agree(float(reserve is not None and reserve.release())))
        if given and self._main:
            get_logger().warning("the disk is full: the room that disk_reserve_gb held is given up for this checkpoint")
        return given

    def wait(self) -> None:
        """Until what is written in the background is committed. Raises its error."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def look(self) -> None:
        """Raise the error of a save in the background, if it is over."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the last save, also where training ended by an error. What is saved after it is saved at once."""
        try:
            self.wait()
        finally:
            if self.settings.reserve is not None:
                self.settings.reserve.release()
            if self._thread is not None:
                self._thread.shutdown()
                self._thread = None

    def _finish(self, draft: _Draft, begun: float) -> None:
        try:
            draft.commit()
        except BaseException as error:
            draft.discard()
            failure = as_storage_error(error, draft.folder)
            if failure is None:
                raise
            self._may_go_on(failure, draft.folder)
            return
        self._told(draft, begun)

    def together(self, action: Callable[[], None], folder: Path) -> None:
        """Do it in every process. Where one fails all raise, so that none waits for the others."""
        failure: BaseException | None = None
        try:
            action()
        except Exception as error:
            failure = as_storage_error(error, folder) or error
        failed = self._agree(1.0 if failure is not None else 0.0)
        if failure is not None:
            raise failure
        if failed:
            what = "a checkpoint could not be written by another process, which says why"
            raise StorageError(Problem("E-TRAIN-081", what, fix="see what that process wrote"))

    def _agree(self, number: float) -> float:
        """The largest of all processes."""
        return float(self._over_ranks([number]).max())

    def _may_go_on(self, error: StorageError, folder: Path) -> bool:
        whole = self._main and self.settings.goes_on and any(verify(one) is None for one in committed(folder.parent))
        if not self._agree(1.0 if whole else 0.0):
            raise error
        get_logger().warning("%s was not saved, training goes on: %s", folder.name, error.problems[0].what)
        return False

    def _told(self, draft: _Draft, begun: float) -> None:
        self.seconds = time.monotonic() - begun
        if self._main:
            get_logger().info("saved %s (%.1f s)", draft.folder, self.seconds)
            if self.settings.reserve is not None:
                self.settings.reserve.hold_again()
            if self.settings.on_committed is not None:
                self.settings.on_committed(draft.folder, draft.model_files)


def best_folder(state: Any, output_dir: Path) -> Path | None:
    """The checkpoint of the best evaluation, if it is there or about to be."""
    if not state.best_global_step:
        return None
    folder = output_dir / f"checkpoint-{state.best_global_step}"
    return folder if state.best_global_step == state.global_step or folder.is_dir() else None


def publish_model(trainer: Any) -> list[str]:
    """The weights as they are, and what belongs to them, whole into the folder of the run. Returns the names of files,
    in the process that writes them. Every process is left with the weights that are saved: they are judged next."""
    show_average(trainer.optimizer)
    folder = Path(trainer.args.output_dir)
    names: list[str] = []

    def write() -> None:
        if trainer.args.should_save:
            names.extend(publish(folder, lambda draft: trainer.write_weights(draft)))

    trainer.saver.together(write, folder)
    return names


class _Draft:
    """One checkpoint on its way to the disk."""

    def __init__(self, folder: Path, step: int, best: Path | None, settings: SavingSettings, *, main: bool) -> None:
        self.folder = folder
        self.model_files: list[str] = []
        self._path = folder.parent / STAGING / folder.name
        self._step, self._best, self._settings, self._main = step, best, settings, main
        self._staging: Staging | None = None
        self._later: list[Callable[[], None]] = []

    def begin(self, what: Saved) -> None:
        if self._main:
            _check_room(folder=self.folder.parent, needed=what.bytes_to_save())
            self._staging = Staging(self.folder.parent, self.folder.name)

    def write(self, what: Saved) -> None:
        """Small states at once. What is large: at once, or copied for `commit` to write."""
        what.write_small_states(self._path)
        trees = {} if self._settings.only_model or not self._main else what.large_states()
        if self._settings.background:
            weights, trees = what.weights_to_save(), copied(trees)
            self._later = [lambda: self._write_weights(what, weights), lambda: self._write_trees(trees)]
            return
        self._write_weights(what)
        self._seal()
        self._write_trees(trees)

    def commit(self) -> None:
        for action in self._later:
            action()
            self._seal()
        if self._staging is None:
            return
        self._staging.commit({"step": self._step, **self._settings.facts})
        rotate(self.folder.parent, self._settings.limit, frozenset(() if self._best is None else (self._best,)))

    def discard(self) -> None:
        self._later = []
        if self._staging is not None:
            self._staging.discard()

    def _write_weights(self, what: Saved, weights: Mapping[str, Any] | None = None) -> None:
        before = set(files_of(self._path))
        what.write_weights(self._path, weights)
        written = sorted(set(files_of(self._path)) - before)
        self.model_files = [file.relative_to(self._path).as_posix() for file in written]

    def _write_trees(self, trees: Mapping[str, Any]) -> None:
        for name, tree in trees.items():
            self._seal(save_tree(self._path, name, tree))

    def _seal(self, known: Mapping[str, str] | None = None) -> None:
        if self._staging is not None:
            self._staging.seal(known)


_FIX = "make room, and the same command goes on from the last checkpoint; save_total_limit keeps fewer of them"


def as_storage_error(error: BaseException, path: Path | None) -> StorageError | None:
    """The error as one of the disk, with what is free; None where it is no such error."""
    if isinstance(error, StorageError):
        return error
    if (what := refusal(error)) is None:
        return None
    where = getattr(error, "filename", None) or path
    made = StorageError(Problem("E-TRAIN-081", what, None if where is None else str(where), free_at(where), _FIX))
    made.__cause__ = error
    return made


@contextmanager
def naming_the_disk(folder: Path) -> Iterator[None]:
    """Turn what a disk says to any file of a run, wherever it is written, into a StorageError with the room there."""
    try:
        yield
    except OSError as error:
        found = as_storage_error(error, folder)
        if found is None:
            raise
        raise found from error


def _check_room(folder: Path, needed: int) -> None:
    """Raises StorageError before anything is written where it would not fit."""
    free = shutil.disk_usage(folder).free
    if free < needed + _MARGIN:
        got = f"{size_text(free)} free, {size_text(needed + _MARGIN)} needed"
        raise StorageError(Problem("E-TRAIN-081", "the disk has no room for a checkpoint", str(folder), got, _FIX))
